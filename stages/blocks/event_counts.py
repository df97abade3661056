"""Counts of right and wrong predictions, second by second and event by event.

Every score of audio-visual video parsing is made of three counts per clip and class: true positives,
false positives and false negatives.  Two things are counted.  A *segment* is one second.  An *event*
is a maximal run of marked seconds; it is found when a true event overlaps it with an intersection of
at least half their union:

    truth      . # # # # . . # .      events 1-4 and 7
    predicted  . . # # # # . . .      event  2-5
    both       . . # # # . . . .      3 seconds shared of 5 covered: found, and event 7 missed

The picture is also the method.  Two intervals share one interval, so the runs of `truth & predicted`
are exactly the overlapping pairs, each with its intersection as its length.  Nothing is matched twice:
two separate events cannot both cover half of a third.

Source: the protocol of Tian et al., ECCV 2020 (arXiv:2007.10558), as its released evaluator counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Counts", "event_counts", "segment_counts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How often a class was rightly found, wrongly found, and missed; any shape, usually (N, C)."""

    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    false_negatives: NDArray[np.int64]

    @property
    def support(self) -> NDArray[np.int64]:
        """All that was predicted or true, found ones once; 0 where the class plays no part."""
        return self.true_positives + self.false_positives + self.false_negatives

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.true_positives + other.true_positives,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
        )

    def pooled(self, axis: int | None) -> Counts:
        """Sum over one axis, or over everything when axis is None."""
        return Counts(
            np.asarray(self.true_positives.sum(axis=axis)),
            np.asarray(self.false_positives.sum(axis=axis)),
            np.asarray(self.false_negatives.sum(axis=axis)),
        )

    def f1(self) -> NDArray[np.float64]:
        """2 TP / (2 TP + FP + FN) in [0, 1]; NaN where the class plays no part."""
        covered = self.support + self.true_positives
        quotient = np.full(covered.shape, np.nan)
        np.divide(2 * self.true_positives, covered, out=quotient, where=covered > 0)
        return quotient


def segment_counts(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> Counts:
    """Count seconds: predicted and true (N, T, C) bool -> (N, C) each."""
    found = np.count_nonzero(predicted & true, axis=1)
    return Counts(
        found,
        np.count_nonzero(predicted, axis=1) - found,
        np.count_nonzero(true, axis=1) - found,
    )


def event_counts(predicted: NDArray[np.bool_], true: NDArray[np.bool_]) -> Counts:
    """Count events found with intersection over union >= 0.5: (N, T, C) bool -> (N, C) each.

    >>> truth, guess = np.array([0, 1, 1, 1, 1, 0, 0, 1, 0]), np.array([0, 0, 1, 1, 1, 1, 0, 0, 0])
    >>> event_counts(guess.astype(bool).reshape(1, 9, 1), truth.astype(bool).reshape(1, 9, 1))
    Counts(true_positives=array([[1]]), false_positives=array([[0]]), false_negatives=array([[1]]))
    """
    clips, segments, classes = predicted.shape
    timelines = (_timelines(predicted), _timelines(true))
    guesses, truths = _runs(timelines[0]), _runs(timelines[1])
    shared = _runs(timelines[0] & timelines[1])
    guess = guesses[np.searchsorted(guesses[:, 0], shared[:, 0], side="right") - 1]
    truth = truths[np.searchsorted(truths[:, 0], shared[:, 0], side="right") - 1]
    intersection = shared[:, 1] - shared[:, 0]
    union = np.maximum(guess[:, 1], truth[:, 1]) - np.minimum(guess[:, 0], truth[:, 0])

    def per_clip_and_class(runs: NDArray[np.int64]) -> NDArray[np.int64]:
        row = runs[:, 0] // (segments + 1)
        return np.bincount(row, minlength=clips * classes).reshape(clips, classes)

    found = per_clip_and_class(shared[2 * intersection >= union])
    return Counts(found, per_clip_and_class(guesses) - found, per_clip_and_class(truths) - found)


def _timelines(labels: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N, T, C) -> (N * C * (T + 1),): one time line after another, a False after each keeps them apart."""
    clips, segments, classes = labels.shape
    lines = np.zeros((clips, classes, segments + 1), dtype=np.bool_)
    lines[:, :, :segments] = labels.transpose(0, 2, 1)
    return lines.reshape(-1)


def _runs(line: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(R, 2) start and stop (exclusive) of every run of True, in order; the line must end in False."""
    edges = np.flatnonzero(np.diff(line, prepend=False))
    return edges.reshape(-1, 2)
