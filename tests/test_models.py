"""`models fetch` and `models ls` against a small hub on loopback: each command in a process and cache of its own."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from avvp_pipe.stages.blocks.undrawn import undrawn
from avvp_pipe.stages.teachers.clap import NAMES
from avvp_pipe.stages.teachers.hub import FetchError, HubFile, check_blob
from avvp_pipe.stages.teachers.inventory import DEFAULTS, inventory, wanted_files
from avvp_pipe.stages.teachers.openclip_files import configuration
from tests.clip_weights import random_state

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME, REPO = "RN50-quickgelu", "timm/resnet50_clip.openai"
WEIGHTS = "open_clip_model.safetensors"


@dataclass
class Hub:
    """Files by path; what was asked for."""

    files: dict[str, bytes]
    asked: list[tuple[str, str]] = field(default_factory=list)
    wrong: bool = False
    """Send other bytes than promised."""
    url: str = ""

    def sent(self) -> list[str]:
        """What was downloaded since the last look."""
        found = [path for method, path in self.asked if method == "GET"]
        self.asked.clear()
        return found


def handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.removeprefix("/").replace("/resolve/main/", "/").replace(f"/resolve/{COMMIT}/", "/")
            hub.asked.append((self.command, path))
            data = hub.files.get(path)
            self.send_response(404 if data is None else 200)
            self.send_header("X-Repo-Commit", COMMIT)
            if data is None:
                self.send_header("X-Error-Code", "EntryNotFound" if "/" in path else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[::-1] if hub.wrong else data)

    return Handler


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    path = tmp_path_factory.mktemp("made") / "weights.safetensors"
    with undrawn():
        save_file(random_state(open_clip.CLIP(**configuration(NAME)), dtype=torch.float16), path)
    made = Hub({f"{REPO}/{WEIGHTS}": path.read_bytes()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(made)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        made.url = f"http://127.0.0.1:{server.server_port}"
        yield made
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def nothing_asked_yet(hub: Hub, fetched: Path) -> None:
    hub.asked.clear()


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


def machine(home: Path, hub: Hub, **more: str) -> dict[str, str]:
    """The environment of a machine whose hub is the small one."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HTTP", "ALL_P"))}
    own = {"HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**clean, "AVVP_PIPE_CACHE": str(home / "own"), **own, **more}


def run(environment: Mapping[str, str], *arguments: str) -> Said:
    command = [sys.executable, "-c", "from avvp_pipe.cli.main import main; main()", *arguments]
    ran = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=120)
    return Said(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def fetched(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A machine that has fetched."""
    home = tmp_path_factory.mktemp("home")
    hub.sent()
    ran = run(machine(home, hub), "models", "fetch", NAME, "--json")
    assert ran.code == 0, ran.err
    assert ran.document["files"][0]["state"] == "fetched"
    assert Path(ran.document["files"][0]["path"]).read_bytes() == hub.files[f"{REPO}/{WEIGHTS}"]
    assert hub.sent() == [f"{REPO}/{WEIGHTS}"]
    return home


def test_what_was_fetched_is_not_fetched_again_nor_asked_for(hub: Hub, fetched: Path) -> None:
    ran = run(machine(fetched, hub), "models", "fetch", NAME)
    assert (ran.code, hub.asked) == (0, [])
    assert ran.out.startswith(f"cached   {WEIGHTS} of {REPO}")
    assert run(machine(fetched, hub, HF_HUB_OFFLINE="1"), "models", "fetch", NAME).code == 0


def test_models_ls_tells_what_is_here_from_what_is_missing(hub: Hub, fetched: Path) -> None:
    found = {
        (one["name"], one["weights"]): one
        for one in run(machine(fetched, hub), "models", "ls", "--json").document["models"]
    }
    here = found[NAME, "openai"]
    assert here["bytes"] == len(hub.files[f"{REPO}/{WEIGHTS}"])
    assert here["where"].startswith(str(fetched))
    assert here["kind"] == "visual"
    for default in DEFAULTS:
        assert found[default]["bytes"] is None
        assert found[default]["missing"]
    assert found["tiny-clap", ""]["bytes"] > 0
    assert hub.asked == []


def test_the_fetched_teacher_loads_and_looks_offline(hub: Hub, fetched: Path) -> None:
    code = (
        "import numpy as np; from avvp_pipe.stages.teachers import visual_teacher, teacher_digest; "
        f"t = visual_teacher('{NAME}'); print(t.images(np.zeros((1, 224, 224, 3), np.uint8)).shape, "
        f"t.texts(['a dog']).shape, len(teacher_digest('{NAME}')))"
    )
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=machine(fetched, hub), capture_output=True, text=True, timeout=120)
    assert ran.stdout.split("\n")[0] == "(1, 1024) (1, 1024) 64", ran.stderr
    assert hub.asked == []


def test_a_dry_run_says_what_is_missing_and_asks_nobody(hub: Hub, tmp_path: Path) -> None:
    ran = run(machine(tmp_path, hub), "models", "fetch", NAME, "--dry-run", "--json")
    assert (ran.code, hub.asked) == (0, [])
    assert [(one["repo"], one["file"], one["state"]) for one in ran.document["files"]] == [(REPO, WEIGHTS, "missing")]


def test_offline_a_missing_file_is_a_clear_error_at_once(hub: Hub, tmp_path: Path) -> None:
    ran = run(machine(tmp_path, hub, HF_HUB_OFFLINE="1"), "models", "fetch", NAME, "--json")
    assert (ran.code, hub.asked) == (1, [])
    assert "HF_HUB_OFFLINE is set" in ran.document["error"]
    assert f"this machine lacks {WEIGHTS} of {REPO};" in ran.document["error"]


def test_a_file_the_hub_does_not_have_is_named(hub: Hub, tmp_path: Path) -> None:
    ran = run(machine(tmp_path, hub), "models", "fetch", "RN101-quickgelu")
    assert ran.code == 1
    assert f"holds no {WEIGHTS} or open_clip_pytorch_model.bin" in ran.err
    assert "Traceback" not in ran.err


def test_bytes_that_came_damaged_are_removed_and_told(hub: Hub, tmp_path: Path) -> None:
    hub.wrong = True
    try:
        ran = run(machine(tmp_path, hub), "models", "fetch", NAME)
    finally:
        hub.wrong = False
    assert ran.code == 1
    assert "came damaged: sha256" in ran.err
    assert [path for path in (tmp_path / "hub").rglob("*") if path.is_file() and path.stat().st_size > 10_000] == []
    assert run(machine(tmp_path, hub), "models", "fetch", NAME).code == 0


def test_unknown_names_and_other_models_tags_are_wrong_use(hub: Hub, tmp_path: Path) -> None:
    for arguments, said in (
        (("ViT-Z",), "no visual teacher 'ViT-Z'"),
        (("ViT-L-14",), "use ViT-L-14-quickgelu"),
        (("HTSAT-tiny-fused", "--weights", "630k-best"), "use HTSAT-tiny"),
    ):
        ran = run(machine(tmp_path, hub), "models", "fetch", *arguments)
        assert ran.code == 2
        assert said in ran.err
    assert hub.asked == []


def test_every_teacher_knows_which_files_it_needs() -> None:
    assert {one.name for one in inventory(everything=True)} >= {"tiny-clip", "tiny-clap", *NAMES}
    assert [str(one) for one in wanted_files("HTSAT-tiny-fused")] == [
        "630k-fusion-best.pt of lukewys/laion_clap",
        "vocab.json of roberta-base",
        "merges.txt of roberta-base",
    ]
    assert wanted_files("tiny-clip") == ()
    repos = {one.repo for one in wanted_files("ViT-B-16-SigLIP", "webli")}
    assert repos == {"timm/ViT-B-16-SigLIP"}


def test_a_cached_file_named_by_its_digest_is_held_against_it(tmp_path: Path) -> None:
    good = tmp_path / hashlib.sha256(b"weights").hexdigest()
    good.write_bytes(b"weights")
    link = tmp_path / "link.bin"
    link.symlink_to(good)
    check_blob(link)
    good.write_bytes(b"others!")
    with pytest.raises(FetchError, match=r"link\.bin came damaged"):
        check_blob(link)
    assert not good.exists()
    assert not link.is_symlink()


def test_optional_files_are_named_by_the_first_of_their_names() -> None:
    assert str(HubFile("a/b", ("x.json", "y.json"), optional=True)) == "x.json of a/b"
