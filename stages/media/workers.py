"""Calls in processes that can be killed: one that hangs, crashes or eats memory costs itself and nothing else.

Every worker has a pipe of its own and a thread here that serves it. (Pools with one queue for all lose everything
with a process that dies while it holds the queue's lock, or halfway through a result.)

    calls ──> todo ──┬─ thread ── pipe ── process      results are taken in the order of the calls
                     └─ thread ── pipe ── process
"""

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.messages import receive, send
from avvp_pipe.stages.media.worker import started

__all__ = ["in_processes"]

TASKS_PER_PROCESS = 500
"""A worker is replaced after so many calls, so that leaks in decoders stay small."""
RESTARTS = 3
"""How often in a row a worker may be lost before it begins a call."""
START_SECONDS = 300.0
"""A worker that is not ready by then is started anew; imports from a busy network drive take their time."""
TICK_SECONDS = 0.05
"""How often time and memory of a running call are looked at."""
STUCK_SECONDS = 5.0
"""A killed process that is not gone by then (the kernel waits for a dead drive) is left behind."""

_Process = subprocess.Popen[bytes]


def in_processes(
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, ...]],
    *,
    workers: int,
    timeout_seconds: float,
    memory_bytes: int = 0,
    ahead: int = 0,
    again: Callable[..., Any] | None = None,
    prepare: Callable[[], None] | None = None,
) -> Iterator[Any]:
    """Call a function in worker processes; results in the order of `calls`, with 2 * workers + 2 under way at most,
    or `ahead` if that is more.

    A call that takes too long is killed and gives ClipError TIMEOUT, one whose process takes more than memory_bytes
    (0: any; looked at on Linux only) OUT_OF_MEMORY, one whose process dies DECODER_DIED. What the function raises is
    raised here. again: called instead of `function`, in a fresh process, where a call was lost in one of these ways.
    prepare: run first in every worker. All of them are found there by their names, so not in the script that is run.
    Raises ChildProcessError where workers cannot be started.
    """
    tries = (function,) if again is None else (function, again)
    crew = _Crew(tries, workers, _Limits(timeout_seconds, memory_bytes), prepare)
    waiting: deque[Future[Any]] = deque()
    try:
        for arguments in calls:
            waiting.append(crew.put(arguments))
            if len(waiting) >= max(2 * workers + 2, ahead):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        crew.close()


@dataclass(frozen=True, slots=True)
class _Limits:
    """What one call may take."""

    seconds: float
    memory_bytes: int

    def check_memory(self, process: _Process, which: str) -> None:
        """Raise ClipError where that is more than is allowed; which: as in `_memory_bytes`."""
        if self.memory_bytes > 0 and (taken := _memory_bytes(process.pid, which)) > self.memory_bytes:
            found = f"decoding took {taken / 2**20:.0f} MiB of memory; {self.memory_bytes / 2**20:.0f} are allowed"
            raise ClipError(Status.OUT_OF_MEMORY, found)


class _LostError(Exception):
    """The process that ran a call is gone, or was killed here."""

    def __init__(self, status: Status, message: str, *, begun: bool) -> None:
        super().__init__(message)
        self.error, self.begun = ClipError(status, message), begun


class _Crew:
    """One thread and one process a worker; the threads draw from one line of calls."""

    def __init__(
        self,
        tries: tuple[Callable[..., Any], ...],
        workers: int,
        limits: _Limits,
        prepare: Callable[[], None] | None,
    ) -> None:
        self._tries, self._limits, self._prepare = tries, limits, prepare
        self._todo: SimpleQueue[tuple[tuple[Any, ...], Future[Any]] | None] = SimpleQueue()
        self._closing = Event()
        self._threads = [Thread(target=self._serve, name="avvp-decode", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def put(self, arguments: tuple[Any, ...]) -> "Future[Any]":
        """Add a call."""
        future: Future[Any] = Future()
        self._todo.put((arguments, future))
        return future

    def close(self) -> None:
        """Kill what still runs, and wait until it is gone."""
        self._closing.set()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        worker = _Worker(self._prepare, self._limits, self._closing)
        try:
            while (item := self._todo.get()) is not None and not self._closing.is_set():
                arguments, future = item
                try:
                    future.set_result(self._call(worker, arguments))
                except BaseException as error:  # raised where the result is taken
                    future.set_exception(error)
        finally:
            worker.kill()

    def _call(self, worker: "_Worker", arguments: tuple[Any, ...]) -> Any:
        """What the call returns; where its process was lost, the second try's; where that was lost too, ClipError."""
        found: ClipError | None = None
        for function in self._tries:
            try:
                return self._begin(worker, function, arguments)
            except _LostError as lost:
                found = lost.error
                if self._closing.is_set():
                    break
        return found

    def _begin(self, worker: "_Worker", function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Ask anew where a worker is lost before it begins: that is not the call's fault. Raises _LostError."""
        why = ""
        for _ in range(RESTARTS):
            try:
                return worker.ask(function, arguments)
            except _LostError as lost:
                if lost.begun or self._closing.is_set():
                    raise
                why = lost.error.message
        raise ChildProcessError(
            f"a decoding process was lost {RESTARTS} times before it began to work ({why}); is there enough memory? "
            "--workers 0 decodes in this process and shows what happens"
        )


class _Worker:
    """A process that runs one call after the other, started when it is needed and whenever it was lost."""

    def __init__(self, prepare: Callable[[], None] | None, limits: _Limits, closing: Event) -> None:
        self._prepare, self._limits, self._closing = prepare, limits, closing
        self._running: tuple[_Process, Connection] | None = None
        self._calls = 0

    def ask(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """What the function returns, or raises. Raises _LostError; the next call then meets a fresh process."""
        begun = False
        try:
            process, pipe = self._ready()
            send(pipe, (function, arguments))
            counted = self._receive(process, pipe, self._limits.seconds)
            begun = True
            fine, found = self._receive(process, pipe, self._limits.seconds)
            if counted:  # what came and went between two looks
                self._limits.check_memory(process, "VmHWM")
        except (EOFError, OSError):
            lost = f"the decoding process died (exit code {self.kill(wait_seconds=1.0)})"
            raise _LostError(Status.DECODER_DIED, lost, begun=begun) from None
        except ClipError as error:
            self.kill()
            raise _LostError(error.status, error.message, begun=begun) from None
        if fine:
            return found
        raise found

    def kill(self, *, wait_seconds: float = 0.0) -> int | None:
        """End the process, unless it does so itself within `wait_seconds`, and return its exit code."""
        if self._running is None:
            return None
        (process, pipe), self._running = self._running, None
        pipe.close()  # to a process that waits for its next call, the end
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(wait_seconds)
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(STUCK_SECONDS)
        return None

    def _ready(self) -> tuple[_Process, Connection]:
        """The process and its pipe; a new one at first, after a loss, and after many calls."""
        if self._running is not None and self._calls >= TASKS_PER_PROCESS:
            self.kill(wait_seconds=1.0)
        if self._running is None:
            pipe, theirs = Pipe()
            _limit_silence(pipe, max(self._limits.seconds, STUCK_SECONDS))
            with theirs:  # were it left open here, nobody would notice that the process is gone
                process = started(theirs)
            self._running, self._calls = (process, pipe), 0
            send(pipe, self._prepare)
            self._receive(process, pipe, START_SECONDS)
        self._calls += 1
        return self._running

    def _receive(self, process: _Process, pipe: Connection, seconds: float) -> Any:
        """The next message. Raises ClipError where it takes too long or too much, EOFError where nobody is there."""
        deadline = time.monotonic() + seconds
        while not pipe.poll(TICK_SECONDS):
            if self._closing.is_set():
                raise EOFError
            if time.monotonic() > deadline:
                raise ClipError(Status.TIMEOUT, f"decoding took longer than {seconds:g} s and was stopped")
            self._limits.check_memory(process, "VmRSS")
        return receive(pipe)


def _limit_silence(pipe: Connection, seconds: float) -> None:
    """Have reading fail where nothing comes for so long: a process may be stopped halfway through its answer."""
    microseconds = int(min(seconds, 1e6) * 1e6)
    limit = struct.pack("@ll", *divmod(microseconds, 10**6))
    with socket.socket(fileno=os.dup(pipe.fileno())) as same:
        same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)


def _memory_bytes(process: int | None, which: str) -> int:
    """Memory that a process takes now (VmRSS), or its peak (VmHWM); 0 where nobody tells (gone, or not Linux)."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024
    except (OSError, StopIteration, ValueError):
        return 0
