"""Fixtures that several test files share."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from avvp_pipe.cli.main import app


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
    """Must not be written to; take `demo_copy` for that."""
    out = tmp_path_factory.mktemp("demo") / "out"
    ran = run_command("demo", "--out", out, "--size", "tiny", "--json", "--quiet")
    assert ran.code == 0, ran.err
    return FinishedDemo(out, ran.document)


@pytest.fixture
def demo_copy(finished_demo: FinishedDemo, tmp_path: Path) -> FinishedDemo:
    """A demo that a test may change. The world is shared, only the store is copied."""
    out = tmp_path / "out"
    shutil.copytree(finished_demo.store, out / "artifacts")
    (out / "world").symlink_to(finished_demo.out / "world")
    return FinishedDemo(out, finished_demo.document)
