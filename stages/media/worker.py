"""The life of one decoding process: calls in, results out, until the pipe closes (the other end is in `workers.py`).

It is a fresh interpreter that imports what it is asked to call and nothing else. (A process of `multiprocessing` also
imports the script that started it, which takes longer than all the rest where that is the command line tool.) When
garbage is collected and memory given back is set here for a process that does nothing but such calls: on the real clip
of LLP that is a tenth of the time.
"""

import contextlib
import ctypes
import gc
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from avvp_pipe.stages.media.messages import receive, send

__all__ = ["serve", "started"]

KEPT_BYTES = 2**25
"""A worker keeps so much freed memory for its next call; page by page it costs more to get than to use."""
MANY_OBJECTS = 100_000
"""Garbage is collected after each call, and within one only where it makes so many objects."""

_PR_SET_PDEATHSIG = 1
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LIFE = """import gc, sys
gc.disable()  # while there is little but imports
sys.path[:] = {path}
from avvp_pipe.stages.media.worker import serve
serve({pipe}, {parent})"""


def started(pipe: Connection) -> "subprocess.Popen[bytes]":
    """Begin a process that serves the other end of `pipe`, and ends with the thread that calls this."""
    life = _LIFE.format(path=[*map(str, sys.path)], pipe=pipe.fileno(), parent=os.getpid())
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    # Inherited: Ctrl-C is for the main process, even while this one is still starting.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    command = [sys.executable, *flags, "-c", life]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[pipe.fileno()])


def serve(file: int, parent: int) -> None:
    """Answer the calls that come through the pipe `file`, from the process `parent`, until it closes.

    What comes first is a function to prepare with, or None.
    """
    _die_with(parent)
    os.set_inheritable(file, False)  # what a process of its own holds open would hide its end
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crashing decoder must not fill the disk
    _keep_freed_memory()
    pipe = Connection(file)
    try:
        prepare = receive(pipe)
        if prepare is not None:
            prepare()
        gc.freeze()  # what was imported stays, and need not be looked at again
        gc.set_threshold(MANY_OBJECTS)
        gc.enable()
        send(pipe, "ready")
        while True:
            function, arguments = receive(pipe)
            send(pipe, _forget_peak())
            send(pipe, _outcome(function, arguments))
            gc.collect()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # whoever asked is gone


def _forget_peak() -> bool:
    """Have the kernel count this process's peak of memory anew; False where it cannot."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _keep_freed_memory() -> None:
    """Have the C library (glibc; others have no such setting) give back memory in large pieces only."""
    with contextlib.suppress(AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, function(*arguments)
    except Exception as error:
        return False, error


def _die_with(parent: int) -> None:
    """Have the kernel end this process when the thread that started it ends, even while it hangs in a decoder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # too late
            os._exit(1)
