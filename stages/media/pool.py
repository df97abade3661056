"""Decoding many clips in processes that can be killed: one that hangs or crashes costs its clip and nothing else."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.stages.media.clip import DecodedClip, Sampling, decode_clip
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.video import load_decord

if TYPE_CHECKING:
    from pebble import ProcessFuture, ProcessPool

__all__ = ["Task", "decode_clips", "in_processes"]

TASKS_PER_PROCESS = 500
"""A worker is replaced after so many clips, so that leaks in decoders stay small."""
RESTARTS = 3
"""How often in a row all workers may be lost before any of them finishes a clip."""


@dataclass(frozen=True, slots=True)
class Task:
    """One clip to decode."""

    row: int
    path: Path
    seconds: int


def decode_clips(
    tasks: Sequence[Task], sampling: Sampling, *, workers: int, timeout_seconds: float
) -> Iterator[tuple[Task, DecodedClip | ClipError]]:
    """Decode clips in the order of `tasks`; a clip that fails gives its ClipError instead.

    workers: processes; 0 decodes in this one, without a time limit. timeout_seconds: limit of one clip. At most
    2 * workers + 2 clips are decoded or waiting to be taken. A script that calls this with workers must guard its
    main part with `if __name__ == "__main__":`, because workers import it.
    """
    calls = [(task, sampling) for task in tasks]
    if workers == 0:
        yield from zip(tasks, (_decode(*call) for call in calls), strict=True)
        return
    found = in_processes(_decode, calls, workers=workers, timeout_seconds=timeout_seconds, prepare=_prepare)
    yield from zip(tasks, found, strict=True)


def in_processes(
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    *,
    workers: int,
    timeout_seconds: float,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Call a function in worker processes; results in the order of `calls`, with 2 * workers + 2 under way at most.

    A call that takes too long is killed and gives ClipError TIMEOUT, one whose process dies gives DECODER_DIED.
    prepare: run first in every worker.
    """
    line = _Line(function, workers, timeout_seconds, prepare)
    try:
        for arguments in calls:
            line.put(arguments)
            if len(line) >= 2 * workers + 2:
                yield line.take()
        while len(line):
            yield line.take()
    finally:
        line.close()


class _Line:
    """Calls on their way through worker processes, taken out in the order they were put in."""

    def __init__(
        self, function: Callable[..., Any], workers: int, timeout_seconds: float, prepare: Callable[[], None] | None
    ) -> None:
        self._function = function
        self._workers = workers
        self._timeout_seconds = timeout_seconds
        self._prepare = prepare
        self._waiting: deque[tuple[tuple[Any, ...], ProcessFuture[Any]]] = deque()
        self._restarts = 0
        self._pool = self._start()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, arguments: tuple[Any, ...]) -> None:
        """Add a call."""
        if not self._pool.active:
            self._restart()
        self._waiting.append((arguments, self._schedule(arguments)))

    def take(self) -> Any:
        """Wait for the oldest call and return what it returned, or a ClipError."""
        from pebble import ProcessExpired

        while True:
            try:
                found = self._waiting[0][1].result()
            except TimeoutError:
                limit = f"decoding took longer than {self._timeout_seconds:g} s and was stopped"
                found = ClipError(Status.TIMEOUT, limit)
            except ProcessExpired as error:
                ended = f"the decoding process died (exit code {error.exitcode})"
                found = ClipError(Status.DECODER_DIED, ended)
            except BrokenProcessPool:  # pebble gives everything up when a worker dies between two calls
                self._restart()
                continue
            self._waiting.popleft()
            self._restarts = 0
            return found

    def close(self) -> None:
        """Kill what still runs."""
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _start(self) -> "ProcessPool":
        from pebble import ProcessPool

        context = get_context("spawn")  # decoders' threads do not survive a fork
        return ProcessPool(self._workers, max_tasks=TASKS_PER_PROCESS, initializer=self._prepare, context=context)

    def _schedule(self, arguments: tuple[Any, ...]) -> "ProcessFuture[Any]":
        return self._pool.schedule(self._function, arguments, timeout=self._timeout_seconds)

    def _restart(self) -> None:
        """Begin again with new workers, and with the calls that were lost."""
        self._restarts += 1
        if self._restarts > RESTARTS:
            raise RuntimeError(
                f"{self._workers} decoding processes died {RESTARTS} times before they finished anything; "
                "is there enough memory? workers = 0 decodes in this process and shows what happens"
            )
        self.close()
        self._pool = self._start()
        for _ in range(len(self._waiting)):
            arguments, future = self._waiting.popleft()
            lost = not future.done() or isinstance(future.exception(), BrokenProcessPool)
            self._waiting.append((arguments, self._schedule(arguments) if lost else future))


def _prepare() -> None:
    # Pebble's own handler waits for Python code to run, which a decoder stuck in C never lets happen.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    load_decord(beside_torch=False)


def _decode(task: Task, sampling: Sampling) -> DecodedClip | ClipError:
    try:
        return decode_clip(task.path, seconds=task.seconds, sampling=sampling)
    except ClipError as error:
        return error
    except MemoryError:
        return ClipError(Status.DECODER_DIED, f"decoding {task.path} took more memory than there is")
    except Exception as error:  # one strange clip must not end a run over thousands
        return ClipError(Status.CORRUPT, f"decoding {task.path} failed with {type(error).__name__}: {error}")
