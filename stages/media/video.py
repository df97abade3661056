"""The pictures of a clip: the frames that were chosen, decoded and made square.

Three decoders, of an undamaged file all to the same bits; a frame is known by its presentation time.

    sparing   PyAV, which leaves out what no wanted picture is made of (`sparing.py`): where key packets are points at
              which H.264 decoding can begin afresh (`VideoIndex.seekable`), which is what video sites deliver
    pyav      PyAV from the start of the file: everything else, and wherever the first one stumbles
    decord    asked instead of the first one where that has cost a process, for it brings another FFmpeg

decord finds a frame by jumping to the nearest key packet and counting from there, and hands out a wrong frame without
a word where that does not work. Measured on small clips, frames equal to those of a decoding from the start:

    H.264, key packets all IDR; mp4, mov, mkv     all          H.264 with open GOPs           9 of 10
    H.264 in MPEG-TS                             none          H.264 with intra refresh       8 of 10
    H.264 in AVI                              1 of 10          HEVC in mp4                    4 of 10
    cut without re-encoding (edit list)       4 of 10          MPEG-4 with B frames in mp4    1 of 10

So it gets the first kind only, must agree with the index about every presentation time, and gets no pictures that are
to be turned or mirrored (it takes a mirrored one for one that stands on its head).
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status, in_words
from avvp_pipe.stages.media.probe import SIDE_LIMIT, VideoIndex, open_media, streams
from avvp_pipe.stages.media.resizes import Pictures
from avvp_pipe.stages.media.sparing import spared
from avvp_pipe.stages.media.turns import UPRIGHT, turn_of, turned

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

__all__ = ["Choice", "decoders", "load_decord", "read_frames"]

BATCH_BYTES = 2**24
"""Full-size frames held at once, if more than one; decoding and making small each run faster for some time on end."""
AGREE_SECONDS = 1e-3
"""decord's presentation times are float32: up to 0.2 ms off within an hour."""

Shrink = Callable[[Pictures], NDArray[Any]]


@dataclass(slots=True)
class Choice:
    """Which decoder is asked for pictures before "pyav", and which one delivered them last."""

    first: str = "sparing"
    delivered: str = ""


_CHOICE: ContextVar[Choice] = ContextVar("avvp_decoders")


@contextmanager
def decoders(first: str) -> Iterator[Choice]:
    """Within the block, `read_frames` asks this one of "sparing", "decord" and "pyav", then "pyav", which takes every
    file; who delivered is noted in the choice.
    """
    choice = Choice(first)
    token = _CHOICE.set(choice)
    try:
        yield choice
    finally:
        _CHOICE.reset(token)


def read_frames(path: Path, index: VideoIndex, chosen: NDArray[np.intp], shrink: Shrink) -> NDArray[Any]:
    """Decode the frames at `chosen` (T,), indices into `index`, and make them small before there are many.

    shrink: n pictures (H, W, 3) uint8, upright -> (n, S, S, 3). Returns (T, S, S, 3) RGB of the type that `shrink`
    gives. Raises ClipError where they cannot be decoded.
    """
    choice = _CHOICE.get(None) or Choice()
    distinct, places = np.unique(chosen, return_inverse=True)
    squares, choice.delivered = None, choice.first
    if index.seekable and choice.first in _SEEKING:
        squares = _SEEKING[choice.first](path, index, distinct, shrink)
    if squares is None:
        squares, choice.delivered = _with_pyav(path, index, distinct, shrink), "pyav"
    return squares if np.array_equal(distinct, chosen) else squares[places]


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
    """The wanted frames, or None where decord fails, knows other presentation times, or would not turn them."""
    decord, held = load_decord(), index.packets
    size = max(BATCH_BYTES // (3 * held.width * held.height), 1)
    try:
        if _is_turned(path):
            return None
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


def _is_turned(path: Path) -> bool:
    with open_media(path) as container:
        video, _ = streams(container, path)
        video.codec_context.thread_count = 1
        return turn_of(next(container.decode(video))) != UPRIGHT


def _sparingly(path: Path, index: VideoIndex, wanted: NDArray[np.intp], shrink: Shrink) -> NDArray[Any] | None:
    """The wanted frames, or None where anything is not as it is in an ordinary, undamaged file."""
    import av

    try:
        return _picked(path, index, spared(index.packets, index.ticks[wanted]), wanted, shrink)
    except (av.FFmpegError, ValueError, ClipError):  # decoding from the start decides what becomes of the clip
        return None


def _with_pyav(path: Path, index: VideoIndex, wanted: NDArray[np.intp], shrink: Shrink) -> NDArray[Any]:
    """The wanted frames, decoded from the start of the file. Raises ClipError."""
    import av

    try:
        with open_media(path) as container:
            video, _ = streams(container, path)
            video.codec_context.thread_count = 1  # one core a worker; the pool does the rest
            return _picked(path, index, container.decode(video), wanted, shrink)
    except (av.FFmpegError, ValueError) as error:
        raise ClipError(Status.CORRUPT, f"the pictures of {path} cannot be decoded: {in_words(error)}") from error


_SEEKING = {"sparing": _sparingly, "decord": _with_decord}


def _picked(
    path: Path, index: VideoIndex, frames: "Iterable[VideoFrame]", wanted: NDArray[np.intp], shrink: Shrink
) -> NDArray[Any]:
    """Take the wanted ones out of frames as they are decoded. Raises ClipError where one is not among them."""
    from av.video.reformatter import VideoReformatter

    ticks = index.ticks[wanted].tolist()
    due, full = set(ticks), dict[int, NDArray[np.uint8]]()
    order, pieces = list[int](), list[NDArray[Any]]()
    to_rgb = VideoReformatter()
    for frame in frames:
        if frame.pts is not None and frame.pts in due:
            _check_side(path, frame.width, frame.height)
            picture = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
            full[frame.pts] = turned(np.asarray(picture, np.uint8), turn_of(frame))
            due.remove(frame.pts)
            if not due or sum(one.nbytes for one in full.values()) >= BATCH_BYTES:
                order += full
                pieces += _made_small(full.values(), shrink)
                full.clear()
        if not due:
            found = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
            return found if order == ticks else found[np.argsort(order)]
    at = (min(due) - int(index.ticks[0])) * float(index.time_base)
    raise ClipError(Status.CORRUPT, f"the decoder of {path} left out the frame shown at {at:.2f} s")


def _made_small(full: Iterable[NDArray[np.uint8]], shrink: Shrink) -> Iterator[NDArray[Any]]:
    """Pictures (H, W, 3), which may grow or turn within a film, made (n, S, S, 3), those of one size together."""
    for _, alike in groupby(full, key=np.shape):
        yield np.asarray(shrink(list(alike)))


def _check_side(path: Path, width: int, height: int) -> None:
    """Pictures may grow after the first. Raises ClipError."""
    if max(width, height) > SIDE_LIMIT:
        raise ClipError(Status.TOO_LONG, f"{path} grows to {width}x{height}; sides up to {SIDE_LIMIT} are read")
