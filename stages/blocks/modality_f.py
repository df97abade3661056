"""The official F of one modality by itself, without the four other views that `metrics.py` counts beside it.

For what is tried many times: widths of a Gaussian, pairs of cuts.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.event_counts import Counts, event_counts, segment_counts

__all__ = ["Levels", "levels_of", "official_f"]


class Levels(NamedTuple):
    """What was found and missed, (N, C)."""

    segment: Counts
    event: Counts


def levels_of(called: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Levels:
    """Counts of labels (N, T, C) bool against the truth, both False beyond the clips' lengths."""
    return Levels(segment_counts(called, truth), event_counts(called, truth))


def official_f(counts: Counts) -> float:
    """Mean over clips of the mean over the classes that play a part, in [0, 1]; 1 for a clip without any.

    >>> called = np.array([[[True, False]], [[False, False]]])
    >>> official_f(levels_of(called, np.array([[[True, True]], [[False, False]]])).segment)
    0.75
    """
    scores = counts.f1()
    known = ~np.isnan(scores)
    of_clip = np.where(known, scores, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return float(np.where(known.any(axis=1), of_clip, 1.0).mean())
