"""Which frames stand for the seconds of a clip, and how they are resized: pure functions on arrays.

    linspace  VALOR: of a stream of 8 frames a second, T evenly spaced ones, first and last included
              n = 80 frames, T = 10:   0  9 18 26 35 44 53 61 70 79
    centre    UWAV's text: the frame shown at the middle of each second, 0.5, 1.5, ...

Both work on presentation times, and are therefore right for variable frame rates.

Departures from VALOR's released code:
* It wrote its 8 frames a second with the ffmpeg program, which runs up to about one frame ahead of the clock. Here
  frame k of that stream is the source frame nearest in time to k / 8 s.
* A clip shorter than asked is filled up with its last frame, so that every frame stays in its own second; theirs
  squeezed the ten together. A clip longer by SLACK_SECONDS or more is read for the seconds asked only.
* Frames are rounded to uint8 after resizing; theirs went on as floats.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = [
    "RESIZES",
    "RULES",
    "centre_times",
    "crop",
    "linspace_indices",
    "linspace_times",
    "nearest_frames",
    "stretch",
]

GRID_FPS = 8
"""VALOR's `ffmpeg -r 8`."""
SLACK_SECONDS = 0.5
"""A clip longer than asked by less than this is spread over its whole duration, as VALOR did (n = 82 at 10.25 s)."""
TIE_SECONDS = 1e-6
"""Of two frames equally near to within this, the earlier wins; rounding errors must not decide it."""

Times = NDArray[np.float64]


def linspace_indices(frames: int, segments: int) -> NDArray[np.intp]:
    """T = `segments` evenly spaced indices out of `frames`, rounded half to even (VALOR, released code).

    >>> linspace_indices(82, 10).tolist()
    [0, 9, 18, 27, 36, 45, 54, 63, 72, 81]
    """
    return np.asarray(np.round(np.linspace(0, frames - 1, segments)), dtype=np.intp)


def linspace_times(duration_seconds: float, segments: int) -> Times:
    """Times, in seconds, of VALOR's frames in a clip of that duration: n = round(8 * duration), see above."""
    spread = segments < duration_seconds < segments + SLACK_SECONDS
    frames = round((duration_seconds if spread else segments) * GRID_FPS)
    return linspace_indices(frames, segments) / GRID_FPS


def centre_times(duration_seconds: float, segments: int) -> Times:
    """The middle of each second, whatever the duration.

    >>> centre_times(10.0, 3).tolist()
    [0.5, 1.5, 2.5]
    """
    return np.arange(segments) + 0.5


RULES: dict[str, Callable[[float, int], Times]] = {"linspace": linspace_times, "centre": centre_times}


def nearest_frames(wanted_seconds: Times, shown_seconds: Times) -> NDArray[np.intp]:
    """Index of the frame whose presentation time is nearest to each wanted time; the earlier one of two.

    wanted_seconds (T,), shown_seconds (F,) rising, F >= 1. Beyond the last frame, the last one.

    >>> nearest_frames(np.array([0.0, 0.26, 9.0]), np.array([0.0, 0.25, 0.5])).tolist()
    [0, 1, 2]
    """
    middles = (shown_seconds[1:] + shown_seconds[:-1]) / 2
    return np.asarray(np.searchsorted(middles + TIE_SECONDS, wanted_seconds, side="left"), dtype=np.intp)


def stretch(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize (n, H, W, 3) to (n, side, side, 3) without keeping proportions: bilinear, no antialias.

    VALOR's preprocessing (torchvision 0.13 on a tensor), rounded to whole grey levels, half to even. It is written
    out in numpy because decoding processes then start in 0.2 s instead of 1.3 s and take a tenth of the memory.
    """
    top, bottom, down = _neighbours(frames.shape[1], side)
    left, right, across = _neighbours(frames.shape[2], side)
    squares = np.empty((len(frames), side, side, 3), np.uint8)
    for frame, square in zip(frames, squares, strict=True):
        rows = frame[top] * (1 - down)[:, None, None] + frame[bottom] * down[:, None, None]
        square[:] = np.rint(rows[:, left] * (1 - across)[:, None] + rows[:, right] * across[:, None])
    return squares


def crop(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """CLIP's own: shorter side to `side` by Pillow's bicubic with antialias, centre cropped; (n, side, side, 3).

    The same pixels as torchvision's Resize and CenterCrop on Pillow images, which CLIP's released code uses.
    """
    height, width = frames.shape[1:3]
    longer = int(side * max(height, width) / min(height, width))
    new_width, new_height = (longer, side) if width > height else (side, longer)
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    squares = np.empty((len(frames), side, side, 3), np.uint8)
    for frame, square in zip(frames, squares, strict=True):
        resized = Image.fromarray(frame).resize((new_width, new_height), Image.Resampling.BICUBIC)
        square[:] = np.asarray(resized)[top : top + side, left : left + side]
    return squares


RESIZES: dict[str, Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]] = {"stretch": stretch, "crop": crop}


def _neighbours(length: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `side` new pixels: the two old ones around its centre, and the weight of the second."""
    position = np.maximum((np.arange(side) + 0.5) * (length / side) - 0.5, 0)
    first = np.minimum(position.astype(np.intp), length - 1)
    second = np.minimum(first + 1, length - 1)
    return first, second, (position - first).astype(np.float32)
