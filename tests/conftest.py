"""Fixtures that several test files share."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from avvp_pipe.cli.main import app
from avvp_pipe.store import Artifact, Builder, Identity, Reference, Store, parse_reference
from tests.made import made

os.environ.pop("COLUMNS", None)  # of whoever runs the tests: what is printed must not depend on it
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell runs in the background is deaf to Ctrl-C
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and what nohup runs, to the end of its terminal
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker has a core of its own; more threads only wait for each other

LONGEST_FIRST = (
    "test_kill.py",
    "test_extract.py",
    "test_laion.py",
    "test_label_methods.py",
    "test_ray.py",
    "test_full_disk.py",
    "test_buckets.py",
    "test_released.py",
    "test_kinds.py",
    "test_pretrain.py",
    "test_races.py",
    "test_recipe_runs.py",
    "test_train_parser.py",
    "test_walk.py",
)
"""Files of minutes, which a worker should not begin when the others have come to the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first; all others as they come."""
    order = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public annotations and golden numbers; skipped without them, an error on CI."""
    folder = os.environ.get("AVVP_REAL_DATA")
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"real annotations wanted: AVVP_REAL_DATA is {folder!r}, not a folder"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what is cached of this run apart from what the person at this machine has cached."""
    os.environ["AVVP_PIPE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@dataclass(frozen=True)
class Ran:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)


def run_command(*arguments: str | Path) -> Ran:
    """Run `avvp-pipe` in this process."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert "Traceback" not in result.stderr or {"--verbose", "-v"} & set(arguments), result.stderr
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def avvp() -> Callable[..., Ran]:
    """`avvp("ls", "--store", folder)` runs a command in this process."""
    return run_command


@dataclass(frozen=True)
class FinishedDemo:
    """The tiny demo, run once for all tests."""

    out: Path
    document: Any

    @property
    def store(self) -> Path:
        """Its artifacts."""
        return self.out / "artifacts"


@pytest.fixture(scope="session")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> FinishedDemo:
    """Must not be written to; take `demo_copy` for that. One for all workers: whoever comes first runs it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    out, document = shared / "demo", shared / "demo.json"
    with FileLock(shared / "demo.lock"):
        if not document.is_file():
            ran = run_command("demo", "--out", out, "--size", "tiny", "--json", "--quiet")
            assert ran.code == 0, ran.err
            document.write_text(ran.out)
    return FinishedDemo(out, json.loads(document.read_text()))


@pytest.fixture
def demo_copy(finished_demo: FinishedDemo, tmp_path: Path) -> FinishedDemo:
    """A demo that a test may change. The world is shared, only the store is copied."""
    out = tmp_path / "out"
    shutil.copytree(finished_demo.store, out / "artifacts")
    (out / "world").symlink_to(finished_demo.out / "world")
    return FinishedDemo(out, finished_demo.document)


def build_small(
    store: Store,
    reference: str,
    *,
    params: Mapping[str, Any] = MappingProxyType({}),
    inputs: Mapping[str, Artifact] = MappingProxyType({}),
    arrays: Mapping[str, Any] = MappingProxyType({}),
    sources: Mapping[str, str] = MappingProxyType({}),
    software: Mapping[str, str] = MappingProxyType({}),
    **attributes: Any,
) -> Artifact:
    """Build an artifact of a few arrays, made from `inputs`, without running a stage."""
    place = parse_reference(reference)
    keys = {role: artifact.key for role, artifact in inputs.items()}
    identity = Identity(f"make-{place.kind}", 1, dict(params), keys, dict(sources))
    assert store.find(Reference(place.kind, place.name, identity.key)) is None, f"{place}@{identity.key} is there"

    def fill(builder: Builder) -> None:
        builder.describe(**attributes)
        for name, data in arrays.items():
            builder.put(name, data)

    record: dict[str, Any] = {
        "inputs": {role: str(artifact.reference) for role, artifact in inputs.items()},
        "input_digests": {role: artifact.content_digest for role, artifact in inputs.items()},
        "software": dict(software),
    }
    return made(store, place, identity, fill, **record)


@pytest.fixture(scope="session")
def make_artifact() -> Callable[..., Artifact]:
    """`make_artifact(store, "labels/a", inputs={"features": other}, arrays={"x": ...}, params={"k": 1})`."""
    return build_small
