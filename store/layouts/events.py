"""Hard labels as events: runs of seconds in which one class is on."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One class over a stretch of whole seconds."""

    column: int
    """Of the class."""
    onset: int
    offset: int
    """It covers the seconds onset .. offset - 1."""


def runs(grid: NDArray[Any]) -> tuple[Run, ...]:
    """The events in one clip's hard labels (T, C) bool, by class and then by time.

    Runs are as long as can be: two of one class never touch. The reverse of `gt[c, onset:offset] = 1`, with which
    every released loader of LLP reads its annotations (methods: AVVP-ECCV20, fde5611).

    >>> runs(np.array([[1, 0], [1, 1], [0, 1]], bool))
    (Run(column=0, onset=0, offset=2), Run(column=1, onset=1, offset=3))
    """
    on = np.asarray(grid, bool).T.astype(np.int8)
    steps = np.diff(on, axis=1, prepend=0, append=0)
    columns, onsets = np.nonzero(steps == 1)
    offsets = np.nonzero(steps == -1)[1]
    return tuple(Run(int(c), int(a), int(b)) for c, a, b in zip(columns, onsets, offsets, strict=True))
