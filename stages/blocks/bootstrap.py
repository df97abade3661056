"""How far a threshold would move had other validation clips been labelled: the bootstrap.

Clips, not segments, are drawn with replacement, because the seconds of a clip resemble each other; thresholds are
fitted anew on each draw. A draw is a count for every clip, so that each class is sorted once and every sweep is a
weighted running sum over the same order:

    logits of a class, sorted     -1.0   0.2   0.5   1.1
    labels                           0     1     0     1
    draw 1: times its clip came      2     0     1     1     -> cut between -1.0 and 0.5 or between 0.5 and 1.1
    draw 2                           0     1     0     3     -> -inf

Tied logits are always swept as `ties="distinct"` has it. What a method learnt besides thresholds is not fitted
anew. B. Efron, "Bootstrap Methods: Another Look at the Jackknife", 1979.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.cells import Cells

__all__ = ["PERCENTILES", "bootstrap_thresholds", "spread"]

PERCENTILES = (5, 95)
CELLS_AT_ONCE = 2**22
"""Draws times segments that are summed at once: 32 MB an array."""


def bootstrap_thresholds(
    cells: Cells, *, resamples: int, seed: int, class_agnostic: bool = False, always: bool = False
) -> NDArray[np.float32]:
    """Thresholds of every class on `resamples` draws of the clips in `cells`: (resamples, C), all equal in a row
    when class-agnostic.

    -inf where calling everything is best. A draw without a positive to call gives +inf, or -inf with `always`.
    """
    names, clips = np.unique(cells.clips, return_inverse=True)
    random = np.random.default_rng(seed)
    counts = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    numbered = Cells(cells.logits, cells.labels, clips, cells.failed)
    swept = numbered.pooled if class_agnostic else numbered
    found = [_refitted(z, y, swept.clips, counts, always) for z, y in zip(swept.logits.T, swept.labels.T, strict=True)]
    return np.ascontiguousarray(np.broadcast_to(np.stack(found, axis=1), (resamples, cells.logits.shape[1])))


def spread(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 5th and 95th percentile of each class: (B, C) -> (2, C).

    Each is one of the samples, never a value between two, so that -inf and +inf are kept as such: a lower end of
    -inf says that at least one draw in twenty called everything.
    """
    found = np.percentile(samples, PERCENTILES, axis=0, method="inverted_cdf")
    return np.asarray(found, np.float32)


def _refitted(
    logits: NDArray[np.float32],
    labels: NDArray[np.bool_],
    clips: NDArray[np.intp],
    counts: NDArray[np.int64],
    always: bool,
) -> NDArray[np.float32]:
    """The best threshold of one class on each draw. logits, labels, clips (M,); counts (B, clips) -> (B,)."""
    positives = counts @ np.bincount(clips[labels], minlength=counts.shape[1])
    can_be_called = np.flatnonzero(logits > -np.inf)
    order = can_be_called[np.argsort(logits[can_be_called], kind="stable")]
    guard = np.float32(-np.inf if always else np.inf)
    if not len(order):
        return np.full(len(counts), guard, np.float32)
    values, truth, owners = logits[order], labels[order], clips[order]
    starts = np.flatnonzero(np.append(True, values[1:] > values[:-1]))
    at_once = max(1, CELLS_AT_ONCE // len(values))
    parts = [
        _swept(
            values[starts], truth, counts[first : first + at_once, owners], starts, positives[first : first + at_once]
        )
        for first in range(0, len(counts), at_once)
    ]
    thresholds, undefined = (np.concatenate(each) for each in zip(*parts, strict=True))
    return np.where(undefined, guard, thresholds)


def _swept(
    values: NDArray[np.float32],
    truth: NDArray[np.bool_],
    weights: NDArray[np.int64],
    starts: NDArray[np.intp],
    positives: NDArray[np.int64],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """One threshold a draw, and whether there was nothing to find.

    values (K,): distinct logits, rising; starts (K,): where each begins among the sorted ones; weights (B, M).
    """
    called = _from_above(weights)[:, starts]
    found = _from_above(weights * truth)[:, starts]
    drawn = called - np.append(called[:, 1:], np.zeros((len(called), 1), called.dtype), axis=1)
    score: NDArray[Any] = 2 * found / np.maximum(called + positives[:, None], 1)
    best = score.argmax(axis=1)
    # The first of equal scores stands right above a logit that was drawn; the threshold lies midway between that one
    # and the next drawn logit.
    places = np.arange(len(values))
    above = values[((drawn > 0) & (places >= best[:, None])).argmax(axis=1)]
    below = np.where(best > 0, values[best - 1], -np.inf).astype(np.float32)
    middle = ((above.astype(np.float64) + below) / 2).astype(np.float32)
    return np.where(middle < above, middle, below), found[:, 0] == 0


def _from_above(weights: NDArray[Any]) -> NDArray[Any]:
    """Running sums from the right."""
    return weights[:, ::-1].cumsum(axis=1)[:, ::-1]
