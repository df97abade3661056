"""Several processes at one store: one builds, the others wait; a reader never sees half of anything."""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import ArtifactNotFoundError, Labels, Store, load_labels
from avvp_pipe.store.verify import verify
from tests.made import IDENTITY, PLACE, made, rows

# `avvp-pipe` that says "ready" after its imports and "computed" before it publishes, and each time goes on when the
# gate of that name exists; and that runs the command as often as it is told.
DRIVER = """
import dataclasses, pathlib, sys, time
import zarr, avvp_pipe.store.builder, avvp_pipe.store.labels
from avvp_pipe.cli.main import app
from avvp_pipe.pipeline.catalogue import STAGES

gates, times, *command = sys.argv[1:]

def gate(name):
    (pathlib.Path(gates) / f"{name}-reached").touch()
    while not (pathlib.Path(gates) / name).exists():
        time.sleep(0.002)

def gated(run):
    def wrapped(inputs, params, out, progress):
        run(inputs, params, out, progress)
        gate("computed")
    return wrapped

stage = STAGES[command[0]]
STAGES[stage.name] = dataclasses.replace(stage, run=gated(stage.run))
gate("ready")
code = 0
for _ in range(int(times)):
    code = code or app(command, standalone_mode=False) or 0
sys.exit(code)
"""
TEACHERS = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap")
EXTRACT = ("extract", "--dataset", "target", "--media", "target", *TEACHERS, "--name", "raced")
CALIBRATE = ("calibrate", "--dataset", "target", "--features", "target", "--name", "raced", "--method", "valor")
RELABEL = (
    "pseudolabel", "--dataset", "target", "--features", "target", "--name", "raced", "--method", "valor",
    "--thresholds", "valor",
)  # fmt: skip


class Process:
    """A command in a process of its own, with gates in a folder of its own."""

    def __init__(self, gates: Path, store: Path, *command: str, times: int = 1, waits: bool = False) -> None:
        self.gates = gates
        gates.mkdir()
        arguments = [sys.executable, "-c", DRIVER, str(gates), str(times), *command, "--store", str(store), "--json"]
        self.running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if not waits:
            self.open("computed")

    def open(self, gate: str) -> None:
        (self.gates / gate).touch()

    def wait_for(self, gate: str) -> None:
        while not (self.gates / f"{gate}-reached").exists():
            assert self.running.poll() is None, self.running.communicate()
            time.sleep(0.002)

    def says(self, words: str) -> str:
        """Its next line on stderr with these words."""
        assert self.running.stderr is not None
        for line in self.running.stderr:
            if words in line:
                return line
        return pytest.fail(f"it ended and never said {words!r}")

    def ended(self) -> Any:
        """Its JSON, after it ended well."""
        out, err = self.running.communicate()
        assert self.running.returncode == 0, err
        return json.loads(out)

    def end(self) -> None:
        if self.running.poll() is None:
            self.running.kill()
        self.running.communicate()


Start = Callable[..., Process]


@pytest.fixture
def start(demo_copy: Any, tmp_path: Path) -> Iterator[Start]:
    """`start(*command)` starts a command on the copied store; all are ended after the test."""
    started: list[Process] = []

    def begin(*command: str, **options: Any) -> Process:
        started.append(Process(tmp_path / f"gates{len(started)}", demo_copy.store, *command, **options))
        return started[-1]

    yield begin
    for process in started:
        process.end()


def all_at_once(processes: list[Process]) -> list[Any]:
    for process in processes:
        process.wait_for("ready")
    for process in processes:
        process.open("ready")
    return [process.ended() for process in processes]


@contextmanager
def holding(start: Start, *command: str) -> Iterator[Process]:
    """A process that has computed everything, and holds it without publishing."""
    process = start(*command, waits=True)
    process.open("ready")
    process.wait_for("computed")
    yield process


def files_of(store: Path, reference: str) -> dict[str, bytes]:
    folder = Store(store).get(reference).path
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def hidden(store: Path, kind: str) -> list[str]:
    return [path.name for path in (store / kind / "raced").iterdir() if path.name not in (".request.json", ".runs")]


def test_of_two_processes_that_start_the_same_stage_at_once_one_builds(demo_copy: Any, start: Start) -> None:
    said = all_at_once([start(*EXTRACT) for _ in range(2)])
    assert sorted(one["state"] for one in said) == ["built", "cached"]
    assert len({one["artifact"] for one in said}) == 1
    assert files_of(demo_copy.store, "features/raced") == files_of(demo_copy.store, "features/target")
    assert hidden(demo_copy.store, "features") == [Store(demo_copy.store).get("features/raced").key]


def test_who_waits_is_told_for_whom_and_finds_what_the_other_built(demo_copy: Any, start: Start) -> None:
    with holding(start, *EXTRACT) as holder:
        second = start(*EXTRACT)
        second.open("ready")
        line = second.says("is being built by")
        assert f"process {holder.running.pid} " in line
        assert platform.node() in line
        assert not [one for one in Store(demo_copy.store).artifacts() if one.name == "raced"]
        holder.open("computed")
        first, later = holder.ended(), second.ended()
    assert (first["state"], later["state"]) == ("built", "cached")
    assert first["artifact"] == later["artifact"]
    assert not (second.gates / "computed-reached").exists(), "it computed what the other had computed"


def test_who_waits_takes_over_from_a_holder_that_is_killed(demo_copy: Any, start: Start) -> None:
    with holding(start, *EXTRACT) as holder:
        second = start(*EXTRACT)
        second.open("ready")
        second.says("is being built by")
        os.kill(holder.running.pid, signal.SIGKILL)
    assert second.ended()["state"] == "built"
    assert files_of(demo_copy.store, "features/raced") == files_of(demo_copy.store, "features/target")
    assert hidden(demo_copy.store, "features") == [Store(demo_copy.store).get("features/raced").key]


def test_different_artifacts_under_one_name_do_not_disturb_each_other(demo_copy: Any, start: Start) -> None:
    others = (*CALIBRATE, "--mode", "class-agnostic"), RELABEL
    said = all_at_once([start(*command) for command in (CALIBRATE, *others)])
    assert [one["state"] for one in said] == ["built"] * 3
    made = {str(one.reference) for one in Store(demo_copy.store).artifacts() if one.name == "raced"}
    assert made == {one["artifact"] for one in said}
    for ours, model in (("labels/raced", "labels/valor"), (said[0]["artifact"], "thresholds/valor")):
        assert files_of(demo_copy.store, ours) == files_of(demo_copy.store, model)
    assert Store(demo_copy.store).find(Store(demo_copy.store).get("thresholds/raced").reference) is not None


def test_two_forced_rebuilds_at_once_both_end_well(demo_copy: Any, start: Start) -> None:
    before = files_of(demo_copy.store, "thresholds/valor")
    command = (*CALIBRATE[:5], "--name", "valor", "--method", "valor", "--force")
    all_at_once([start(*command) for _ in range(2)])
    assert files_of(demo_copy.store, "thresholds/valor") == before


def everything(labels: Labels) -> dict[str, np.ndarray[Any, Any]]:
    return {name: labels.artifact.array(name) for name in sorted(labels.artifact.array_names())}


def test_a_reader_sees_all_or_nothing_while_labels_are_rebuilt(demo_copy: Any, start: Start) -> None:
    """Old and new are the same bytes, so what is read must be them, or a clear error that there are none just now."""
    expected = everything(load_labels("valor", store=demo_copy.store))
    command = [word if word != "raced" else "valor" for word in RELABEL]
    writer = start(*command, "--force", "--quiet", times=25)
    writer.open("ready")
    whole = 0
    while writer.running.poll() is None:
        try:
            labels = load_labels("valor", store=demo_copy.store)
            seen = everything(labels)
        except ArtifactNotFoundError:
            continue
        assert seen.keys() == expected.keys()
        for name in expected:
            np.testing.assert_array_equal(seen[name], expected[name], strict=True)
        whole += 1
    assert writer.running.returncode == 0
    assert whole > 0


def test_an_open_array_of_a_removed_artifact_raises_instead_of_reading_as_nothing(demo_copy: Any) -> None:
    store = Store(demo_copy.store)
    artifact, unread = store.get("labels/valor"), store.get("labels/valor")
    array = artifact.lazy("audio_hard")
    store.discard(artifact)
    for read in (lambda: array[...], lambda: artifact.array("visual_hard"), lambda: unread.array("weak")):
        with pytest.raises(ArtifactNotFoundError, match="removed"):
            read()


def test_a_leftover_that_a_build_goes_on_with_is_not_taken_from_under_it(tmp_path: Path) -> None:
    """What gc found a moment ago may be in use by now: clearing waits for the lock, and finds nothing left."""
    store = Store(tmp_path)
    stopped = threading.Event()

    def stop(start: int) -> None:
        if start == 16 and not stopped.is_set():
            stopped.set()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        made(store, PLACE, IDENTITY, partial(rows, until=stop))
    (left,) = store.leftovers()
    clearing: list[threading.Thread] = []

    def clear_meanwhile(start: int) -> None:
        if not clearing:
            clearing.append(threading.Thread(target=store.clear, args=(left,)))
            clearing[0].start()
            clearing[0].join(0.3)
            assert clearing[0].is_alive(), "it waits for the lock"

    artifact = made(store, PLACE, IDENTITY, partial(rows, until=clear_meanwhile))
    clearing[0].join(30)
    assert not clearing[0].is_alive()
    assert verify(artifact, store).is_sound
    assert store.leftovers() == ()
