"""The pictures of a clip: the frames that were chosen, decoded and made square.

decord decodes where its frame numbers can be trusted, PyAV everywhere else. decord finds a frame by jumping to the
nearest key packet and counting from there, and hands out a wrong frame without a word where that does not work.
Measured on small clips, frames equal to those of a decoding from the start:

    H.264, key packets all IDR; mp4, mov, mkv     all          H.264 with open GOPs           9 of 10
    H.264 in MPEG-TS                             none          H.264 with intra refresh       8 of 10
    H.264 in AVI                              1 of 10          HEVC in mp4                    4 of 10
    cut without re-encoding (edit list)       4 of 10          MPEG-4 with B frames in mp4    1 of 10

So decord gets the first kind (`VideoIndex.seekable`), which is what video sites deliver, and must agree with the
index about every presentation time. PyAV decodes from the start and picks frames by their presentation times;
it is also asked where decord fails, and for pictures that are to be turned or mirrored (decord takes a mirrored one
for one that stands on its head).
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status, in_words
from avvp_pipe.stages.media.probe import SIDE_LIMIT, UPRIGHT, VideoIndex, open_media, streams, turned

__all__ = ["Choice", "decoders", "load_decord", "read_frames"]

BATCH_BYTES = 2**28
"""Full-size frames held at once."""
AGREE_SECONDS = 1e-3
"""decord's presentation times are float32: up to 0.2 ms off within an hour."""

Shrink = Callable[[NDArray[np.uint8]], NDArray[Any]]


@dataclass(slots=True)
class Choice:
    """Which decoders may be asked for pictures, and which one delivered them last."""

    allowed: tuple[str, ...] = ("decord", "pyav")
    delivered: str = ""


_CHOICE: ContextVar[Choice] = ContextVar("avvp_decoders")


@contextmanager
def decoders(*allowed: str) -> Iterator[Choice]:
    """Within the block, `read_frames` asks only these of "decord" and "pyav", and notes in the choice who delivered.

    "pyav" is always asked in the end: decord does not take every file.
    """
    choice = Choice(allowed)
    token = _CHOICE.set(choice)
    try:
        yield choice
    finally:
        _CHOICE.reset(token)


def read_frames(path: Path, index: VideoIndex, chosen: NDArray[np.intp], shrink: Shrink) -> NDArray[Any]:
    """Decode the frames at `chosen` (T,), indices into `index`, and make them small before the next ones come.

    shrink: (n, H, W, 3) uint8, upright -> (n, S, S, 3). Returns (T, S, S, 3) RGB of the type that `shrink` gives.
    Raises ClipError where they cannot be decoded.
    """
    choice = _CHOICE.get(None) or Choice()
    distinct, places = np.unique(chosen, return_inverse=True)
    squares, choice.delivered = None, "decord"
    if "decord" in choice.allowed and index.seekable and index.turn == UPRIGHT:
        squares = _with_decord(path, index, distinct, shrink)
    if squares is None:
        squares, choice.delivered = _with_pyav(path, index, distinct, shrink), "pyav"
    return squares[places]


def load_decord(*, beside_torch: bool = True) -> Any:
    """Import decord, after torch: the other way round can freeze torch's own worker processes (dmlc/decord#251).

    beside_torch=False is for a process that never needs torch, and saves it a second and 450 MB; later calls in
    that process find decord already there.
    """
    if beside_torch and "decord" not in sys.modules:
        import torch  # noqa: F401
    import decord

    decord.logging.set_level(decord.logging.QUIET)  # damaged clips would print binary junk; the error says it
    return decord


def _with_decord(path: Path, index: VideoIndex, wanted: NDArray[np.intp], shrink: Shrink) -> NDArray[Any] | None:
    """The wanted frames, or None where decord fails or knows other presentation times."""
    decord = load_decord()
    size = max(BATCH_BYTES // (3 * index.width * index.height), 1)
    try:
        # fault_tol: a frame that decord would patch up from its neighbours is an error instead.
        reader = decord.VideoReader(str(path.absolute()), ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
        shown = np.asarray(reader.get_frame_timestamp(range(len(reader))))[:, 0]
        expected = (index.ticks - index.ticks[0]) * float(index.time_base)
        if len(shown) != len(expected) or np.abs(shown - expected).max() > AGREE_SECONDS:
            return None
        batches = [wanted[begin : begin + size].tolist() for begin in range(0, len(wanted), size)]
        return np.concatenate([shrink(reader.get_batch(batch).asnumpy()) for batch in batches])
    except Exception:  # whatever it stumbles over: PyAV decides what becomes of the clip
        return None


def _with_pyav(path: Path, index: VideoIndex, wanted: NDArray[np.intp], shrink: Shrink) -> NDArray[Any]:
    """The wanted frames, decoded from the start of the file. Raises ClipError."""
    import av

    due = {int(index.ticks[frame]): place for place, frame in enumerate(wanted)}
    pieces: dict[int, NDArray[Any]] = {}
    try:
        with open_media(path) as container:
            video, _ = streams(container, path)
            video.codec_context.thread_count = 1  # one core a worker; the pool does the rest
            for frame in container.decode(video):
                if frame.pts in due:
                    _check_side(path, frame.width, frame.height)
                    full = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                    pieces[due.pop(frame.pts)] = shrink(turned(full, index.turn)[None])
                if not due:
                    break
    except (av.FFmpegError, ValueError) as error:
        raise ClipError(Status.CORRUPT, f"the pictures of {path} cannot be decoded: {in_words(error)}") from error
    if due:
        at = (min(due) - int(index.ticks[0])) * float(index.time_base)
        raise ClipError(Status.CORRUPT, f"the decoder of {path} left out the frame shown at {at:.2f} s")
    return np.concatenate([pieces[place] for place in range(len(wanted))])


def _check_side(path: Path, width: int, height: int) -> None:
    """Pictures may grow after the first. Raises ClipError."""
    if max(width, height) > SIDE_LIMIT:
        raise ClipError(Status.TOO_LONG, f"{path} grows to {width}x{height}; sides up to {SIDE_LIMIT} are read")
