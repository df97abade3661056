"""Decoding many clips in processes that can be killed: one that hangs or crashes costs its clip and nothing else.

A clip that loses its process (time, memory, a crash) is tried once more, in a fresh process, and its pictures there
by decord, which brings another FFmpeg than PyAV. Where a decoder merely fails, the next one is asked in the same
process. Of an undamaged file all give the same pictures, whoever delivers; `tally` counts.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avvp_pipe.stages.media.clip import DecodedClip, Sampling, decode_clip
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.video import decoders, load_decord
from avvp_pipe.stages.media.workers import in_processes

__all__ = ["Task", "decode_clips"]

SECOND_TRY = "-second-try"
"""What `tally` adds to a decoder's name where the first try lost its process."""

_Found = tuple[DecodedClip | ClipError, str]


@dataclass(frozen=True, slots=True)
class Task:
    """One clip to decode."""

    row: int
    path: Path
    seconds: int


def decode_clips(
    tasks: Sequence[Task],
    sampling: Sampling,
    *,
    workers: int,
    timeout_seconds: float,
    memory_bytes: int = 0,
    ahead: int = 0,
    tally: Counter[str] | None = None,
) -> Iterator[tuple[Task, DecodedClip | ClipError]]:
    """Decode clips in the order of `tasks`; a clip that fails gives its ClipError instead.

    workers: processes; 0 decodes in this one, without limits of time and memory. timeout_seconds, memory_bytes: limits
    of one try, from the file's first byte to the last sample; memory 0: no limit, and counted on Linux only. At most
    2 * workers + 2 clips, or `ahead` if that is more, are decoded or waiting to be taken. tally: counts who delivered
    ("sparing" and "pyav", both PyAV's, "decord-second-try", "pyav-second-try"), and failed clips by the code of their
    status. Raises ChildProcessError where workers cannot be started.
    """
    calls = [(task, sampling) for task in tasks]
    if workers == 0:
        found: Iterator[_Found | ClipError] = (_decode(*call) for call in calls)
    else:
        found = in_processes(
            _decode,
            calls,
            workers=workers,
            timeout_seconds=timeout_seconds,
            memory_bytes=memory_bytes,
            ahead=ahead,
            again=_decode_again,
            prepare=_prepare,
        )
    for task, one in zip(tasks, found, strict=True):
        if isinstance(one, ClipError):  # its process was lost, which does not know the clip's name
            one = ClipError(one.status, f"{task.path}: {one.message}"), ""
        clip, decoder = one
        if tally is not None:
            tally[clip.code if isinstance(clip, ClipError) else decoder] += 1
        yield task, clip


def _prepare() -> None:
    """Load before the clock of the first clip runs."""
    import av  # noqa: F401


def _decode(task: Task, sampling: Sampling, first: str = "sparing") -> _Found:
    """The clip or why not, and which decoder its pictures are from."""
    try:
        with decoders(first) as choice:
            clip = decode_clip(task.path, seconds=task.seconds, sampling=sampling)
        return clip, choice.delivered
    except ClipError as error:
        return error, ""
    except MemoryError:
        return ClipError(Status.OUT_OF_MEMORY, f"decoding {task.path} took more memory than there is"), ""
    except Exception as error:  # one strange clip must not end a run over thousands
        return ClipError(Status.CORRUPT, f"decoding {task.path} failed with {type(error).__name__}: {error}"), ""


def _decode_again(task: Task, sampling: Sampling) -> _Found:
    load_decord(beside_torch=False)
    clip, decoder = _decode(task, sampling, "decord")
    return clip, decoder and decoder + SECOND_TRY
