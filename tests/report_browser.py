"""A page in headless Chromium: opened from the disk, asked by scripts, with everything that it logged and requested."""

import json
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

DRIVER, CHROMIUM = "chromedriver", "chromium"
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900")
WAIT_SECONDS = 10.0


def lacking() -> str:
    """What is not installed, in words; empty where all is there."""
    missing = [name for name in (CHROMIUM, DRIVER) if shutil.which(name) is None]
    try:
        import selenium  # noqa: F401
    except ImportError:
        missing.append("selenium")
    return f"{' and '.join(missing)} wanted (Debian: apt-get install chromium chromium-driver)" if missing else ""


class Browser:
    """One Chromium; `with Browser() as browser:` closes it."""

    def __enter__(self) -> Self:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.binary_location = str(shutil.which(CHROMIUM))
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=Service(str(shutil.which(DRIVER))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.driver.quit()

    def open(self, page: Path, hash_: str = "") -> None:
        """Open the page anew, and wait until the viewer stands."""
        self.driver.get("about:blank")
        self.logged()
        self.requested()
        self.driver.get(page.resolve().as_uri() + hash_)
        self.wait("return !document.getElementById('stage') || !document.getElementById('stage').hidden")

    def wait(self, script: str) -> None:
        """Until a script returns true."""
        until = time.monotonic() + WAIT_SECONDS
        while not self.run(script):
            assert time.monotonic() < until, f"waited {WAIT_SECONDS} s for {script}"
            time.sleep(0.02)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def press(self, key: str) -> None:
        """A key, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(key).perform()

    def emulate(self, *, width: int, dark: bool = False) -> None:
        """A screen of that width, light or dark."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def logged(self) -> list[str]:
        """What the console said since the last time."""
        return [str(one["message"]) for one in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def requested(self) -> list[str]:
        """The addresses that were asked for since the last time, without those that the page's policy stopped."""
        log = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(one["message"])["message"] for one in log]
        failed = [one["params"] for one in messages if one["method"] == "Network.loadingFailed"]
        stopped = {one["requestId"] for one in failed if one.get("blockedReason") == "csp"}
        sent = [one["params"] for one in messages if one["method"] == "Network.requestWillBeSent"]
        urls = [str(one["request"]["url"]) for one in sent if one["requestId"] not in stopped]
        return [url for url in urls if url != "about:blank"]

    def shown_after(self) -> float:
        """Milliseconds from the start of loading until the viewer showed a clip."""
        return float(self.run("return performance.getEntriesByName('avvp-shown')[0].startTime"))
