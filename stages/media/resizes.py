"""How a frame becomes a square: pure functions on arrays.

stretch   VALOR: proportions are not kept, bilinear between pixels, no antialias
crop      CLIP's own: shorter side by Pillow's bicubic with antialias, centre cropped
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DTYPES", "RESIZES", "Pictures", "crop", "squares", "stretch"]

Pictures = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
"""n of one size, (n, H, W, 3) in one array or (H, W, 3) each in its own."""

DTYPES = ("uint8", "float32")
BAND = 32
"""So many rows of a square are computed at a time: what that takes stays in the processor's cache."""
APART = 256
"""Numbers between two buffers. A processor takes addresses a multiple of 4096 bytes apart for the same, and waits."""
LONG = 8
"""A picture so many times longer than wide is cropped while it is resized; the whole of it could be a gigabyte."""


def squares(frames: Pictures, side: int, resize: str, dtype: str) -> NDArray[Any]:
    """Resize n pictures (H, W, 3) to (n, side, side, 3) in grey levels 0 to 255.

    resize: a name in RESIZES; dtype: in DTYPES. As uint8 they are rounded, half to even. As float32 `stretch` gives
    what lies between grey levels, as VALOR went on with; `crop` has whole ones by nature.
    """
    return RESIZES[resize](frames, side, np.dtype(dtype))


def stretch(frames: Pictures, side: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Resize n pictures (H, W, 3) to (n, side, side, 3) without keeping proportions: bilinear, no antialias.

    VALOR's preprocessing (torchvision 0.13 on a tensor). It is written out in numpy because decoding processes then
    start in 0.2 s instead of 1.3 s and take a tenth of the memory. The rows and columns needed are gathered first, in
    whole bytes; then rows are mixed, and then columns, a band of each picture at a time, in memory that is used again.
    """
    height, width = frames[0].shape[:2]
    *rows, down = _neighbours(height, side)
    *columns, across = _neighbours(width, side)
    needed, left, right = map(_colours, _distinct(*columns))
    across = np.repeat(across, 3)
    flat = [frame.reshape(height, 3 * width) for frame in frames]
    found = np.empty((len(frames), side, 3 * side), dtype)
    for begin in range(0, side, BAND):
        part = slice(begin, begin + BAND)
        band, top, bottom = _distinct(*(row[part] for row in rows))
        full, upper, lower = _buffers(len(needed), len(band), len(top), len(top))
        one, other = _buffers(3 * side, len(top), len(top))
        for frame, square in zip(flat, found, strict=True):
            taken = frame[band]
            full[:] = taken if len(needed) == 3 * width else taken.take(needed, axis=1, mode="clip")
            _mix(full.take(top, 0, upper, "clip"), full.take(bottom, 0, lower, "clip"), down[part, None])
            _mix(upper.take(left, 1, one, "clip"), upper.take(right, 1, other, "clip"), across)
            square[part] = np.rint(one, out=one) if found.dtype == np.uint8 else one
    return found.reshape(-1, side, side, 3)


def _buffers(width: int, *heights: int) -> list[NDArray[np.float32]]:
    """Memory for numbers, (height, width) each."""
    space = np.empty((len(heights), max(heights) * width + APART), np.float32)
    return [one[: height * width].reshape(height, width) for one, height in zip(space, heights, strict=True)]


def _distinct(first: NDArray[np.intp], second: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The distinct ones among two rows of indices, and where among those the first and the second ones are."""
    distinct, at = np.unique([first, second], return_inverse=True)
    return [distinct, *at.reshape(2, -1)]


def _colours(pixels: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of pixels of a row, where their three colours are."""
    return (pixels[:, None] * 3 + np.arange(3)).ravel()


def _mix(one: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32]) -> None:
    """one += (other - one) * share, in place; what `other` holds is lost."""
    other -= one
    other *= share
    one += other


def crop(frames: Pictures, side: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """CLIP's own: shorter side to `side` by Pillow's bicubic with antialias, centre cropped; (n, side, side, 3).

    The same pixels as torchvision's Resize and CenterCrop on Pillow images, which CLIP's released code uses.
    """
    from PIL import Image

    height, width = frames[0].shape[:2]
    longer = int(side * max(height, width) / min(height, width))
    new_width, new_height = (longer, side) if width > height else (side, longer)
    left, top = round((new_width - side) / 2), round((new_height - side) / 2)
    found = np.empty((len(frames), side, side, 3), dtype)
    for frame, square in zip(frames, found, strict=True):
        image = Image.fromarray(frame)
        if longer > LONG * side:
            wide, high = width / new_width, height / new_height
            box = (left * wide, top * high, (left + side) * wide, (top + side) * high)
            square[:] = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC, box=box))
        else:
            resized = image.resize((new_width, new_height), Image.Resampling.BICUBIC)
            square[:] = np.asarray(resized)[top : top + side, left : left + side]
    return found


RESIZES: dict[str, Callable[[Pictures, int, Any], NDArray[Any]]] = {"stretch": stretch, "crop": crop}


def _neighbours(length: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `side` new pixels: the two old ones around its centre, and the weight of the second."""
    position = np.maximum((np.arange(side) + 0.5) * (length / side) - 0.5, 0)
    first = np.minimum(position.astype(np.intp), length - 1)
    second = np.minimum(first + 1, length - 1)
    return first, second, (position - first).astype(np.float32)
