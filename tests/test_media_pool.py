"""Decoding processes: one clip that hangs or crashes costs itself, and nothing piles up."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator

from avvp_pipe.stages.media import ClipError, Status
from avvp_pipe.stages.media.pool import in_processes

# Workers find functions of the standard library by name; those of a test module they would not.


def status(found: object) -> Status | None:
    return found.status if isinstance(found, ClipError) else None


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


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
    }


def test_a_call_that_hangs_is_killed_and_the_others_come_through_in_order() -> None:
    started = time.monotonic()
    calls = [(0.01,), (600,), (0.01,), (0.01,)]
    found = list(in_processes(time.sleep, calls, workers=2, timeout_seconds=0.5))
    assert [status(result) for result in found] == [None, Status.TIMEOUT, None, None]
    assert time.monotonic() - started < 10


def test_a_call_that_crashes_its_process_costs_itself() -> None:
    calls = [("exit 0",), ("kill -ABRT $PPID; sleep 600",), ("exit 3",)]
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
