"""The report of 2,000 clips: how large the file is, how long it takes to write, and how soon it is seen.

2,000 clips of ten seconds with 25 classes, eight sets of labels and a parser, stored frames of 64 pixels and sound.
The promises, each a line; exits 1 where one is broken:

- the file is under 15 MB, and every clip has its picture;
- first paint in headless Chromium in under a second (the median of five), the first clip shown in under two;
- a step to the next clip in under 50 ms, a filter and an order in under 250 ms.

    python tests/bench/bench_report.py
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import types
from pathlib import Path

tests = types.ModuleType("tests")  # ours, whatever else is installed under that name
tests.__path__ = [str(Path(__file__).parents[1])]
sys.modules["tests"] = tests

from avvp_pipe.pipeline.report import MAX_BYTES  # noqa: E402
from avvp_pipe.pipeline.report.gather import Wanted  # noqa: E402
from avvp_pipe.pipeline.report.write import make_report, write_page  # noqa: E402
from avvp_pipe.stages.stage import Silent  # noqa: E402
from avvp_pipe.store import Store  # noqa: E402
from tests.report_browser import Browser  # noqa: E402
from tests.report_world import Shape, world  # noqa: E402

SHAPE = Shape(
    clips=2000,
    classes=tuple(f"Class {place:02d}" for place in range(25)),
    sets=tuple(f"method{place}" for place in range(8)),
    side=64,
    rate=8000,
)
TURNS = 5
PAINT = "return performance.getEntriesByName('first-paint')[0].startTime"
STEP = """
const began = performance.now();
document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'j', bubbles: true}));
document.body.getBoundingClientRect();
return performance.now() - began;
"""
ORDER = """
const select = document.getElementById('by-order'), began = performance.now();
select.value = 'dispute';
document.getElementById('by-events').value = 'audio';
select.dispatchEvent(new Event('input', {bubbles: true}));
document.body.getBoundingClientRect();
return performance.now() - began;
"""


def main() -> int:
    """Print one line a promise."""
    with tempfile.TemporaryDirectory() as folder:
        store, page = Store(Path(folder) / "artifacts"), Path(folder) / "report.html"
        world(store, SHAPE)
        began = time.monotonic()
        report = make_report(store, Wanted(("dataset/world",)), made="now", progress=Silent())
        size = write_page(page, report)
        written = time.monotonic() - began
        pictured = sum(map(bool, report.pictures.strips))
        paints, shows, steps, orders = [], [], [], []
        with Browser() as browser:
            for _ in range(TURNS):
                browser.open(page)
                shows.append(browser.shown_after())
                paints.append(float(browser.run(PAINT)))
                steps += [float(browser.run(STEP)) for _ in range(TURNS)]
                orders.append(float(browser.run(ORDER)))
    print(f"written in {written:.1f} s ({report.pictures.facts})")
    kept = [
        _line("size, MB", size / 1e6, MAX_BYTES / 1e6),
        _line("clips without a picture", SHAPE.clips - pictured, 1),
        _line("first paint, ms", statistics.median(paints), 1000),
        _line("first clip shown, ms", statistics.median(shows), 2000),
        _line("a step, ms", statistics.median(steps), 50),
        _line("order and filter, ms", statistics.median(orders), 250),
    ]
    return 0 if all(kept) else 1


def _line(what: str, came: float, limit: float) -> bool:
    fine = came < limit
    print(f"{'kept  ' if fine else 'BROKEN'} {what}: {came:.1f} (under {limit:g})")
    return fine


if __name__ == "__main__":
    sys.exit(main())
