"""How a frame becomes a square: pure functions on arrays.

stretch   VALOR: proportions are not kept, bilinear between pixels, no antialias
crop      CLIP's own: shorter side by Pillow's bicubic with antialias, centre cropped
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["DTYPES", "RESIZES", "crop", "squares", "stretch"]

DTYPES = ("uint8", "float32")
LONG = 8
"""A picture so many times longer than wide is cropped while it is resized; the whole of it could be a gigabyte."""


def squares(frames: NDArray[np.uint8], side: int, resize: str, dtype: str) -> NDArray[Any]:
    """Resize (n, H, W, 3) to (n, side, side, 3) in grey levels 0 to 255; resize: a name in RESIZES, dtype in DTYPES.

    As uint8 they are rounded, half to even. As float32 `stretch` gives what lies between grey levels, as VALOR went on
    with; `crop` has whole ones by nature.
    """
    return RESIZES[resize](frames, side, np.dtype(dtype))


def stretch(frames: NDArray[np.uint8], side: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """Resize (n, H, W, 3) to (n, side, side, 3) without keeping proportions: bilinear, no antialias.

    VALOR's preprocessing (torchvision 0.13 on a tensor). It is written out in numpy because decoding processes then
    start in 0.2 s instead of 1.3 s and take a tenth of the memory. The rows needed are gathered first, and of them the
    columns, in whole bytes; only the side * side pixels that remain are computed with, in memory that is used again.
    """
    height, width = frames.shape[1:3]
    top, bottom, down = _neighbours(height, side)
    *columns, across = _neighbours(width, side)
    rows, at = np.unique([top, bottom], return_inverse=True)
    top, bottom = at.reshape(2, side)
    of_columns = [(column[:, None] * 3 + np.arange(3)).ravel() for column in columns]
    down, across = down[:, None], np.repeat(across, 3)
    found = np.empty((len(frames), side, side, 3), dtype)
    left, right, lower = np.empty((3, side, 3 * side), np.float32)
    for frame, square in zip(frames, found, strict=True):
        needed = frame.reshape(height, 3 * width)[rows]
        for upper, column in zip((left, right), of_columns, strict=True):
            gathered = needed.take(column, axis=1, mode="clip")  # none is clipped; it spares a look at each
            upper[:], lower[:] = gathered[top], gathered[bottom]
            _mix(upper, lower, down)
        _mix(left, right, across)
        square[:] = (np.rint(left) if found.dtype == np.uint8 else left).reshape(side, side, 3)
    return found


def _mix(one: NDArray[np.float32], other: NDArray[np.float32], share: NDArray[np.float32]) -> None:
    """one += (other - one) * share, in place; what `other` holds is lost."""
    other -= one
    other *= share
    one += other


def crop(frames: NDArray[np.uint8], side: int, dtype: Any = np.uint8) -> NDArray[Any]:
    """CLIP's own: shorter side to `side` by Pillow's bicubic with antialias, centre cropped; (n, side, side, 3).

    The same pixels as torchvision's Resize and CenterCrop on Pillow images, which CLIP's released code uses.
    """
    height, width = frames.shape[1:3]
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


RESIZES: dict[str, Callable[[NDArray[np.uint8], int, Any], NDArray[Any]]] = {"stretch": stretch, "crop": crop}


def _neighbours(length: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `side` new pixels: the two old ones around its centre, and the weight of the second."""
    position = np.maximum((np.arange(side) + 0.5) * (length / side) - 0.5, 0)
    first = np.minimum(position.astype(np.intp), length - 1)
    second = np.minimum(first + 1, length - 1)
    return first, second, (position - first).astype(np.float32)
