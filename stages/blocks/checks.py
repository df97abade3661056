"""What arguments must look like before anything is counted: labels, lengths, and choices by name."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["as_bool", "require_choice", "valid_segments"]


def as_bool(name: str, labels: ArrayLike) -> NDArray[np.bool_]:
    """Return labels as booleans; only booleans and the integers 0 and 1 are taken.

    Soft labels are refused rather than rounded: the released evaluators test `== 1`, so that
    probabilities fed to them silently hold no event at all.

    >>> as_bool("pred_audio", [[0, 1]])
    array([[False,  True]])
    """
    array: NDArray[Any] = np.asarray(labels)
    if array.dtype == np.bool_:
        return array
    if np.issubdtype(array.dtype, np.integer) and bool(np.isin(array, (0, 1)).all()):
        return array.astype(np.bool_)
    raise ValueError(
        f"{name} must hold booleans, or integers that are 0 or 1, but came as {array.dtype}"
        f"{_range(array)}; soft labels are made hard first, for instance with scores > thresholds"
    )


def valid_segments(lengths: ArrayLike | None, *, clips: int, segments: int) -> NDArray[np.bool_]:
    """Mark the segments a clip really has: (N, T) bool, all of them when lengths is None.

    lengths (N,) holds integers in [0, T]; the segments after a clip's length are padding.

    >>> valid_segments([1, 2], clips=2, segments=2)
    array([[ True, False],
           [ True,  True]])
    """
    if lengths is None:
        return np.ones((clips, segments), dtype=np.bool_)
    array: NDArray[Any] = np.asarray(lengths)
    if array.shape != (clips,) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"lengths must be one integer for each of the {clips} clips, "
            f"but came as {array.dtype} of shape {array.shape}"
        )
    if array.size and (array.min() < 0 or array.max() > segments):
        raise ValueError(
            f"lengths must lie in 0..{segments}, the segments of the arrays, but reach from "
            f"{array.min()} to {array.max()}"
        )
    valid: NDArray[np.bool_] = np.arange(segments) < array[:, None]
    return valid


def require_choice(name: str, value: str, choices: object) -> None:
    """Refuse a value that is not among those of a Literal type, naming those that are.

    >>> from typing import Literal
    >>> require_choice("level", "clip", Literal["segment", "event"])
    Traceback (most recent call last):
    ValueError: no level 'clip'; there are segment, event
    """
    known = get_args(choices)
    if value not in known:
        raise ValueError(f"no {name} {value!r}; there are {', '.join(known)}")


def _range(array: NDArray[Any]) -> str:
    if array.size == 0 or not np.issubdtype(array.dtype, np.number):
        return ""
    return f" from {array.min()} to {array.max()}"
