"""A run that is killed at any moment, and started again, ends with the same bytes as one that was not."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from os import killpg
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.store import Store

KILLS = 30
A_STAGE = 3
"""Kills aimed at each stage, of which one must fall while it builds; the others are aimed at any."""
PASSES = 4
SEED = 20_250_801
TRAINING = ("--set", "pretrain.epochs=6", "--set", "train-parser.epochs=4")
LEFT_BEHIND = (".partial", ".lock", ".holder", ".tmp", ".discarded")

# Imports everything once and forks a run for each line it reads: a kill every second, not one every import of torch.
# Small shards, so that kills fall between shards too. Each run is a process group and says which step it is at.
DRIVER = """
import dataclasses, os, pkgutil, sys
import av, numpy, pydantic, torch, torchaudio, zarr
import avvp_pipe.stages, avvp_pipe.store.builder, avvp_pipe.store.labels
from avvp_pipe.cli.main import app
from avvp_pipe.pipeline import demo
from avvp_pipe.pipeline.catalogue import STAGES

for module in pkgutil.walk_packages(avvp_pipe.stages.__path__, "avvp_pipe.stages."):
    if "train_embedded" not in module.name:
        __import__(module.name)
for name, stage in STAGES.items():
    STAGES[name] = dataclasses.replace(stage, shard_rows=4)
events = os.fdopen(os.dup(1), "w", buffering=1)
run_step = demo.run_step

def told(store, step, **options):
    print("begin", step.stage, step.reference, file=events)
    outcome = run_step(store, step, **options)
    print("end", outcome.seconds, file=events)
    return outcome

def child():
    os.setpgid(0, 0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    demo.run_demo.__globals__["run_step"] = told
    code = 99
    try:
        code = app(sys.argv[1:], standalone_mode=False) or 0
    finally:
        os._exit(code)

for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        child()
    print("run", pid, file=events)
    print("over", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=events)
"""


@dataclass
class Runs:
    """The demo, again and again in one folder, one run at a time."""

    out: Path
    process: subprocess.Popen[str]
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each step, by kind/name, undisturbed and in order."""
    stages: dict[str, str] = field(default_factory=dict)
    pid: int = 0

    @property
    def store(self) -> Path:
        return self.out / "artifacts"

    def start(self) -> None:
        assert self.process.stdin is not None
        print("run", file=self.process.stdin, flush=True)

    def event(self) -> list[str]:
        assert self.process.stdout is not None
        words = self.process.stdout.readline().split()
        assert words, "the driver is gone"
        if words[0] == "run":
            self.pid = int(words[1])
            return self.event()
        return words

    def whole(self) -> None:
        """One run to its end."""
        self.start()
        step = ""
        while (words := self.event())[0] != "over":
            if words[0] == "begin":
                step = words[2]
                self.stages[step] = words[1]
            else:
                self.seconds[step] = float(words[1])
        assert words[1] == "0", (self.out / "log").read_text()[-3000:]

    def killed_at(self, step: str, share: float) -> str | None:
        """Start a run, and kill it when it has spent this share of the step's time. Says in which step it died."""
        self.start()
        while (words := self.event())[:1] != ["over"]:
            if words[0] == "begin" and words[2] == step:
                time.sleep(share * self.seconds[step])
                killpg(self.pid, signal.SIGKILL)
                return self.died_in(step)
        assert words[1] == "0", (self.out / "log").read_text()[-3000:]
        return None

    def died_in(self, step: str) -> str | None:
        while (words := self.event())[0] != "over":
            step = words[2] if words[0] == "begin" else ""
        assert words[1] in ("0", str(-signal.SIGKILL)), words
        return step if words[1] != "0" else None


@pytest.fixture
def runs(finished_demo: Any, tmp_path: Path) -> Iterator[Runs]:
    (tmp_path / "world").symlink_to(finished_demo.out / "world")
    command = ["demo", "--out", str(tmp_path), "--size", "tiny", "--json", "--quiet", *TRAINING]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        yield Runs(tmp_path, process)
        assert process.stdin is not None
        process.stdin.close()


def moments(runs: Runs, stages: list[str], chance: random.Random) -> list[tuple[str, float]]:
    """Where to kill: a step of each of these stages, in the order of the run, and how far into the step."""
    steps = list(runs.seconds)
    drawn = [chance.choice([step for step in steps if runs.stages[step] == stage]) for stage in stages]
    return sorted(((step, chance.random()) for step in drawn), key=lambda moment: steps.index(moment[0]))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_whole(store: Path, undisturbed: Path) -> None:
    """Whatever can be seen is what the undisturbed run made, to the last byte."""
    for artifact in Store(store).artifacts():
        place = Path(artifact.kind, artifact.name, artifact.key)
        assert files_of(store / place) == files_of(undisturbed / place), f"{artifact.reference} is torn"
        assert artifact.provenance["stage"]


def test_thirty_kills_over_all_stages_leave_no_trace(runs: Runs, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    runs.whole()
    runs.store.rename(undisturbed)
    chance, kills = random.Random(SEED), 0
    stages = list(dict.fromkeys(runs.stages.values()))
    wanted = stages * A_STAGE + chance.choices(stages, k=KILLS - A_STAGE * len(stages))
    for _ in range(PASSES):
        for step, share in moments(runs, wanted, chance):
            died_in = runs.killed_at(step, share)
            assert_whole(runs.store, undisturbed)
            kills += died_in is not None
            if died_in and list((runs.store / died_in).glob(".*.partial")):
                stages = [stage for stage in stages if stage != runs.stages[died_in]]
        runs.whole()
        assert_same_store(runs.store, undisturbed)
        wanted = stages + ["decode"] * (KILLS - kills)
        if not wanted:
            return
        shutil.rmtree(runs.store)
    pytest.fail(f"with seed {SEED} only {kills} kills came in time; none in the middle of {stages}")


def assert_same_store(root: Path, undisturbed: Path) -> None:
    """All artifacts are there and equal, and nothing else is once the little that `gc` clears is gone."""
    assert_whole(root, undisturbed)
    store = Store(root)
    left = store.leftovers()
    assert all(one.name.endswith(".tmp") for one in left), "a resumed build clears its own site"
    for one in left:
        store.clear(one)
    assert sorted(files_of(root)) == sorted(files_of(undisturbed))
    assert not [path for path in root.rglob("*") if path.suffix in LEFT_BEHIND]
