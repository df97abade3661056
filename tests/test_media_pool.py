"""Decoding processes: one clip that hangs or crashes costs itself, and nothing piles up."""

import contextlib
import ctypes
import importlib
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.stages.media import ClipError, DecodedClip, Status, workers
from avvp_pipe.stages.media.workers import in_processes

# Workers find functions of the standard library by name; those of a test module they would not.


def status(found: object) -> Status | None:
    return found.status if isinstance(found, ClipError) else None


def children() -> list[int]:
    """The decoding processes that this one has started and that are there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone meanwhile
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state != "Z" and b"media.worker" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found


def test_the_stored_numbers_never_change() -> None:
    assert {status.code: int(status) for status in Status} == {
        "pending": 0,
        "ok": 1,
        "missing-file": 2,
        "empty-file": 3,
        "not-a-video": 4,
        "no-video-stream": 5,
        "no-audio-stream": 6,
        "corrupt": 7,
        "too-long": 8,
        "timeout": 9,
        "decoder-died": 10,
        "too-short": 11,
        "non-finite": 12,
        "out-of-memory": 13,
    }


def test_a_call_that_hangs_is_killed_and_the_others_come_through_in_order() -> None:
    started = time.monotonic()
    calls = [(0.01,), (600,), (0.01,), (0.01,)]
    found = list(in_processes(time.sleep, calls, workers=2, timeout_seconds=0.5))
    assert [status(result) for result in found] == [None, Status.TIMEOUT, None, None]
    assert time.monotonic() - started < 10


def test_a_call_that_crashes_its_process_costs_itself() -> None:
    calls = [("exit 0",), ("kill -ABRT $PPID; sleep 2",), ("exit 3",)]
    found = list(in_processes(os.system, calls, workers=1, timeout_seconds=30))
    assert [status(result) for result in found] == [None, Status.DECODER_DIED, None]
    assert os.waitstatus_to_exitcode(found[2]) == 3


def test_results_keep_the_order_of_the_calls() -> None:
    assert list(in_processes(abs, [(-number,) for number in range(20)], workers=2, timeout_seconds=30)) == list(
        range(20)
    )


def test_calls_are_drawn_only_as_results_are_taken() -> None:
    drawn = []

    def calls() -> Iterator[tuple[int]]:
        for number in range(100):
            drawn.append(number)
            yield (number,)

    results = in_processes(abs, calls(), workers=1, timeout_seconds=30)
    for taken in range(1, 6):
        next(results)
        assert len(drawn) <= taken + 2 * 1 + 2
    results.close()  # type: ignore[attr-defined]


def test_workers_killed_while_idle_are_replaced_and_no_call_is_lost() -> None:
    results = in_processes(abs, ((number,) for number in range(12)), workers=1, timeout_seconds=30)
    found = [next(results)]
    time.sleep(0.3)  # the few calls under way are done: the worker waits for the next
    for child in children():
        os.kill(child, signal.SIGKILL)
    found += list(results)
    assert found == list(range(12))


def test_leaving_early_leaves_no_process_behind() -> None:
    results = in_processes(time.sleep, [(0,), (600,), (600,)], workers=2, timeout_seconds=600)
    next(results)
    started = time.monotonic()
    results.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 10
    assert not children()


def test_a_call_that_takes_too_much_memory_costs_itself() -> None:
    calls = [(number,) for number in (2**20, 2**29, 2**20)]
    found = list(in_processes(b"x".__mul__, calls, workers=1, timeout_seconds=30, memory_bytes=2**28))
    assert [status(result) for result in found] == [None, Status.OUT_OF_MEMORY, None]
    assert "256 are allowed" in str(found[1])


def test_memory_that_comes_and_goes_between_two_looks_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "TICK_SECONDS", 60.0)
    calls = [("len(b'x' * 2**29)",), ("len(b'x' * 2**20)",)]
    large, small = in_processes(eval, calls, workers=1, timeout_seconds=60, memory_bytes=2**28)
    assert large.status is Status.OUT_OF_MEMORY
    assert small == 2**20


def test_what_a_call_leaves_in_circles_is_gone_before_the_next() -> None:
    calls = [("(lambda one: one.append(one))([b'x' * 2**26])",)] * 8
    assert list(in_processes(eval, calls, workers=1, timeout_seconds=60, memory_bytes=2**28)) == [None] * 8


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library keeps memory as it likes")
def test_memory_that_a_call_gives_back_is_there_for_the_next() -> None:
    faults = "([b'x' * 2**22 for _ in range(4)], __import__('resource').getrusage(0).ru_minflt)[1]"
    first, *_, before, last = in_processes(eval, [(faults,)] * 5, workers=1, timeout_seconds=60)
    pages = 4 * 2**22 // os.sysconf("SC_PAGESIZE")
    assert last - before < pages / 4
    assert first > pages / 4  # pages are counted


def test_without_a_limit_of_memory_a_call_may_take_any() -> None:
    (found,) = in_processes(b"x".__mul__, [(2**27,)], workers=1, timeout_seconds=30)
    assert len(found) == 2**27


def test_what_the_function_raises_is_raised_where_the_result_is_taken() -> None:
    found = in_processes(int, [("1",), ("one",)], workers=1, timeout_seconds=30)
    assert next(found) == 1
    with pytest.raises(ValueError, match="'one'"):
        next(found)


@pytest.mark.parametrize(
    ("function", "argument"),
    [(time.sleep, 600), (os._exit, 3), (b"x".__mul__, 2**29)],
    ids=["time", "crash", "memory"],
)
def test_a_lost_call_is_tried_once_more_with_another_function(function: Callable[..., Any], argument: int) -> None:
    limits: dict[str, Any] = {"timeout_seconds": 2, "memory_bytes": 2**28}
    assert list(in_processes(function, [(argument,)], workers=1, again=str, **limits)) == [str(argument)]


def test_a_call_lost_twice_says_what_became_of_its_second_try() -> None:
    (found,) = in_processes(time.sleep, [(600,)], workers=1, timeout_seconds=0.3, again=os._exit)
    assert status(found) == Status.DECODER_DIED
    assert "exit code" in str(found)


# What follows stands for a process that the kernel kills, or that is stopped, halfway through its answer.
HALFWAY = """
import os, signal
from multiprocessing.connection import Connection

whole = Connection.send_bytes

def half(self, buffer, *rest):
    if len(buffer) < 2**20:
        return whole(self, buffer, *rest)
    os.write(self.fileno(), len(buffer).to_bytes(4, "big") + bytes(1000))
    os.kill(os.getpid(), signal.{signal})

Connection._send_bytes, whole = (lambda self, buffer: half(self, buffer)), Connection._send_bytes
"""


@pytest.mark.parametrize(("name", "wanted"), [("SIGKILL", Status.DECODER_DIED), ("SIGSTOP", Status.DECODER_DIED)])
def test_an_answer_that_breaks_off_costs_its_call_and_the_next_is_answered(
    name: str, wanted: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HALFWAY.format(signal=name))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(workers, "STUCK_SECONDS", 0.5)
    found = list(in_processes(b"x".__mul__, [(10,), (2**21,), (11,)], workers=1, timeout_seconds=0.5))
    assert (found[0], status(found[1]), found[2]) == (b"x" * 10, wanted, b"x" * 11)


def test_workers_that_cannot_start_are_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ChildProcessError, match=r"before it began to work.*exit code 7.*--workers 0"):
        list(in_processes(abs, [(1,)], workers=2, timeout_seconds=30))


UNGUARDED = """
print("read", flush=True)
from avvp_pipe.stages.media.workers import in_processes

print(*in_processes(abs, [(-1,), (-2,), (-3,)], workers=2, timeout_seconds=60))
"""


def test_workers_do_not_read_the_script_that_starts_them(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["read", "1 2 3"]


def test_workers_find_modules_where_this_process_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_here.py").write_text("def doubled(number):\n    return 2 * number\n")
    monkeypatch.syspath_prepend(tmp_path)
    doubled = importlib.import_module("found_here").doubled
    assert list(in_processes(doubled, [(1,), (2,)], workers=1, timeout_seconds=60)) == [2, 4]


HUNG = """
import os
from avvp_pipe.stages.media.workers import in_processes

if __name__ == "__main__":
    pids = in_processes(os.getpid, [()] * 2, workers=1, timeout_seconds=60)
    print(next(pids), flush=True)
    # Stopped: nothing runs in there any more that could see that the parent is gone.
    list(in_processes(os.system, [("echo $PPID; kill -STOP $PPID",)] * 2, workers=2, timeout_seconds=600))
"""


def running(process: int) -> bool:
    """Is it there, and not only as an entry that its parent has not read?"""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGINT", "SIGHUP"])
def test_no_worker_outlives_its_parent_however_that_ends(name: str, tmp_path: Path) -> None:
    script = tmp_path / "hung.py"
    script.write_text(HUNG)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, str(script)], start_new_session=True, **pipes) as parent:
        assert parent.stdout is not None
        assert parent.stderr is not None
        hung = [int(parent.stdout.readline()) for _ in range(3)]
        assert all(map(running, hung))
        if name == "SIGINT":  # Ctrl-C goes to everybody at the terminal
            os.killpg(parent.pid, signal.SIGINT)
        else:
            parent.send_signal(signal.Signals[name])
        parent.wait(30)
        said = parent.stderr.read()
    deadline = time.monotonic() + 30
    while any(map(running, hung)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(running, hung))
    assert said.count("Traceback") == (name == "SIGINT"), said


def test_calls_ahead_may_be_more_than_the_workers_need() -> None:
    drawn = []

    def calls() -> Iterator[tuple[int]]:
        for number in range(100):
            drawn.append(number)
            yield (number,)

    results = in_processes(abs, calls(), workers=1, timeout_seconds=30, ahead=40)
    assert next(results) == 0
    assert len(drawn) == 40
    results.close()  # type: ignore[attr-defined]


def test_large_arrays_come_out_as_they_went_in_and_may_be_written_to() -> None:
    large = np.random.default_rng(0).integers(0, 256, (3, 500, 700), np.uint8)
    times, nothing = np.arange("1900", "2040", dtype="datetime64[D]"), np.array([None] * 10000)
    arrays = (large, np.arange(5), large.T, large[:, ::2], large[:0], large.astype(float), times, nothing)
    clip = DecodedClip(large, np.arange(3, dtype=np.int32), np.zeros(3), np.ones(100_000, np.float32), 7, 10.5)
    (found,) = in_processes(operator.itemgetter(0), [([(arrays, clip, {"deep": [large]})],)], workers=1, **LONG)
    assert all(np.array_equal(one, other) for one, other in zip(found[0], arrays, strict=True))
    assert [one.dtype for one in found[0]] == [one.dtype for one in arrays]
    for field in fields(clip):
        assert np.array_equal(getattr(found[1], field.name), getattr(clip, field.name))
    assert np.array_equal(found[2]["deep"][0], large)
    found[0][0][:] = 0
    assert large.any()


LONG: dict[str, Any] = {"timeout_seconds": 30}
BESIDE = """
import os, signal
from avvp_pipe.stages.media import messages

write = os.write

def half(file, data):
    if len(data) < 2**20:
        return write(file, data)
    write(file, data[:1000])
    os.kill(os.getpid(), signal.{signal})

messages.os = type("os", (), {{"write": staticmethod(half), "readv": staticmethod(os.readv)}})
"""


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_an_array_that_breaks_off_costs_its_call_and_the_next_is_answered(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BESIDE.format(signal=name))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(workers, "STUCK_SECONDS", 0.5)
    found = list(in_processes(np.zeros, [(10,), (2**18,), (11,)], workers=1, timeout_seconds=0.5))
    assert (len(found[0]), status(found[1]), len(found[2])) == (10, Status.DECODER_DIED, 11)
