"""Two cuts instead of one: whether a class is in a clip at all, and in which of its seconds.

    logit      -1.5  -0.6  0.7  0.2  -0.5  -1.8      best second 0.7 > clip cut 0.25: it is there
    called        .     #    #    #     #     .      seconds above the second cut, -0.8

    logit      -1.5  -0.6  0.1  0.2  -0.5  -1.8      best second 0.2: it is not there, whatever single seconds say
    called        .     .    .    .     .     .      logits are brought down to the second cut

The official score averages classes within a clip and clips with one weight: a class called in one wrong second of a
clip costs as much as one missed altogether, while within a clip where a class is certain, leaving out a doubtful second
costs more than taking it in. One cut cannot do both. Voice activity and sound event detection call it hysteresis, or
double thresholds.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.modality_f import levels_of, official_f

SECOND_CUTS = tuple(round(-1.4 + 0.2 * step, 1) for step in range(10))
CLIP_CUTS = (-np.inf, 0.0, 0.25, 0.5)
"""Logits that are tried; a clip cut of -inf, or below the second cut, asks nothing of the clip."""


@dataclass(frozen=True, slots=True)
class Presence:
    """Both cuts of one modality, on logits."""

    second: float
    clip: float


def choose(
    logits: NDArray[np.float32], truth: NDArray[np.bool_], allowed: NDArray[np.bool_], lengths: NDArray[Any]
) -> Presence:
    """The cuts at which labels of one modality score best: the mean of the official segment and event F.

    logits and truth (M, T, C), allowed (M, C), lengths (M,). A second cut's score is averaged with those of the cuts
    next to it, 1:2:1, so that a lucky one does not win; of equal scores, the first of `CLIP_CUTS` and then of
    `SECOND_CUTS`. Without any clip whose logits are known, both are 0.
    """
    there = ~np.isnan(logits).all(axis=(1, 2))
    within = (np.arange(logits.shape[1]) < lengths[:, None])[there][:, :, None]
    values, true = logits[there], truth[there] & within
    may = allowed[there][:, None, :] & within
    if not len(values):
        return Presence(0.0, 0.0)

    def score(cuts: Presence) -> float:
        levels = levels_of((brought_down(values, cuts) > np.float32(cuts.second)) & may, true)
        return (official_f(levels.segment) + official_f(levels.event)) / 2

    scores = np.array([[score(Presence(second, clip)) for second in SECOND_CUTS] for clip in CLIP_CUTS])
    wide = np.pad(scores, ((0, 0), (1, 1)), mode="edge")
    clip, second = np.unravel_index(int((wide[:, :-2] + 2 * scores + wide[:, 2:]).argmax()), scores.shape)
    return Presence(SECOND_CUTS[second], CLIP_CUTS[clip])


def brought_down(logits: NDArray[np.float32], cuts: Presence) -> NDArray[np.float32]:
    """The logits, (N, T, C), at most the second cut in clips whose best second does not pass the clip cut.

    >>> z = np.array([[[-0.6], [0.2]], [[-0.6], [0.7]]], np.float32)
    >>> brought_down(z, Presence(second=-0.8, clip=0.25))[:, :, 0]
    array([[-0.8, -0.8],
           [-0.6,  0.7]], dtype=float32)
    """
    best = np.where(np.isnan(logits), -np.inf, logits).max(axis=1, keepdims=True)
    return np.where(best > np.float32(cuts.clip), logits, np.minimum(logits, np.float32(cuts.second)))
