"""What is said of labels beside the official scores: class by class, how much is labelled, how far two sets agree.

All are made of counts, which are stored as they are, so that nothing has to be believed that cannot be computed again.

    counts of a split   (2, 3, 3, C)   levels x A, V, AV x TP, FP, FN x classes     -> precision, recall, F
    tally of a split    (2, 5, C)      modalities x TALLY x classes                 -> label rates
    confusion           (4, 4, C)      true KINDS x called KINDS x classes          -> what was taken for what
    agreement           (2, 4, C)      modalities x both, first only, second only, neither -> kappa
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.event_counts import Counts
from avvp_pipe.stages.metrics import LEVELS, LabelCounts

__all__ = [
    "KINDS",
    "TALLY",
    "VIEWS",
    "agreement_counts",
    "agreement_of",
    "class_counts",
    "label_rates",
    "modality_confusion",
    "precision_recall_f",
    "tally_counts",
    "union_share",
]

VIEWS = ("A", "V", "AV")
TALLY = ("labelled", "named", "outside", "true", "known")
"""Seconds that are labelled within the weak label, that the weak label names, that are labelled outside it; and where
the truth is known: that are true within the weak label, and that it names."""
KINDS = ("none", "audio only", "visual only", "both")
"""What a class is in a second: neither heard nor seen, heard but not seen, seen but not heard, both."""
Whole = NDArray[np.int64]
Known = NDArray[np.bool_]
Floats = NDArray[np.float64]


def class_counts(counts: LabelCounts) -> Whole:
    """(2, 3, 3, C): levels, views A, V and AV, counts TP, FP and FN, classes, each summed over the N clips."""
    return np.array([[_of_classes(counts[level][view]) for view in VIEWS] for level in LEVELS], np.int64)


def _of_classes(counts: Counts) -> list[Whole]:
    pooled = counts.pooled(axis=0)
    return [pooled.true_positives, pooled.false_positives, pooled.false_negatives]


def precision_recall_f(counts: Whole) -> Floats:
    """From TP, FP, FN on the first axis, (3, ...), to precision, recall and F in percent, (3, ...).

    NaN where nothing is predicted, nothing is true, and neither.

    >>> precision_recall_f(np.array([3, 1, 0])).tolist()
    [75.0, 100.0, 85.71428571428571]
    """
    right, wrong, missed = counts
    return 100 * np.stack(
        [_ratio(right, right + wrong), _ratio(right, right + missed), _ratio(2 * right, 2 * right + wrong + missed)]
    )


def tally_counts(
    hard: NDArray[np.bool_], truth: NDArray[np.bool_], named: NDArray[np.bool_], valid: NDArray[np.bool_], known: Known
) -> Whole:
    """How many seconds are labelled, by class: (5, C), as TALLY says.

    hard, truth (N, T, C); named (N, C), the weak label; valid (N, T); known (N,) clips whose truth is known.
    """
    seconds = valid[:, :, None]
    within = named[:, None] & seconds
    told = within & known[:, None, None]
    cells = (hard & within, within, hard & seconds & ~within, truth & told, told)
    return np.array([np.count_nonzero(one, axis=(0, 1)) for one in cells], np.int64)


def modality_confusion(
    called: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    truth: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    lengths: NDArray[np.integer[Any]],
) -> Whole:
    """How often seconds that truly are of one kind were called of another: (4, 4, C), true and called KINDS, classes.

    called, truth: heard and seen, (N, T, C) each; lengths (N,): seconds beyond them do not count. All classes count in
    every clip, whether its weak label names them or not.

    >>> on, off = np.ones((1, 2, 1), bool), np.zeros((1, 2, 1), bool)
    >>> modality_confusion((on, on), (on, off), np.array([2]))[1, :, 0]  # truly heard only, called heard and seen
    array([0, 0, 0, 2])
    """
    of_truth, of_calls = (heard + np.uint8(2) * seen for heard, seen in (truth, called))
    places = np.uint8(4) * of_truth + of_calls
    places = places[np.arange(places.shape[1]) < lengths[:, None]]
    counts = [np.bincount(of_class, minlength=16) for of_class in places.T]
    return np.stack(counts, axis=1).reshape(4, 4, -1)


def label_rates(tally: Whole) -> tuple[Floats, Floats]:
    """Shares in [0, 1] of the named seconds that are labelled, and that are true: from (5, ...) to (...) each.

    NaN where a class is in no weak label, or its truth is not known.
    """
    labelled, named, _, true, known = tally
    return _ratio(labelled, named), _ratio(true, known)


def agreement_counts(first: NDArray[np.bool_], second: NDArray[np.bool_], counted: NDArray[np.bool_]) -> Whole:
    """How often two sets of hard labels say the same: (N, T, C) each -> (4, C): both, first only, second only, neither.

    counted: (N, T, C), or what broadcasts to it, the cells that count.
    """
    cells = (first & second, first & ~second, second & ~first, ~(first | second))
    return np.array([np.count_nonzero(one & counted, axis=(0, 1)) for one in cells], np.int64)


def agreement_of(table: Whole) -> tuple[Floats, Floats]:
    """Share of equal cells and Cohen's kappa from (4, ...) counts as of `agreement_counts`; shapes (...).

    Cohen, "A coefficient of agreement for nominal scales", 1960: kappa = (p_o - p_e) / (1 - p_e), p_e the agreement
    of two raters who label as often as these do, but at random. NaN where there is no cell; kappa is NaN, too, where
    both label everything or both nothing, since chance alone then agrees.

    >>> share, kappa = agreement_of(np.array([20, 5, 10, 15]))
    >>> float(share), round(float(kappa), 6)
    (0.7, 0.4)
    """
    both, first, second, neither = table
    cells = table.sum(axis=0)
    observed = _ratio(both + neither, cells)
    by_first, by_second = _ratio(both + first, cells), _ratio(both + second, cells)
    chance = by_first * by_second + (1 - by_first) * (1 - by_second)
    certain = (first + second == 0) & ((both == 0) | (neither == 0))
    kappa = np.full(observed.shape, np.nan)
    np.divide(observed - chance, 1 - chance, out=kappa, where=~certain)
    return observed, kappa


def union_share(table: Whole) -> Floats:
    """Intersection over union of what both label, from (4, ...) counts; NaN where neither labels anything."""
    both, first, second, _ = table
    return _ratio(both, both + first + second)


def _ratio(part: Whole, whole: Whole) -> Floats:
    quotient = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=quotient, where=np.asarray(whole) > 0)
    return quotient
