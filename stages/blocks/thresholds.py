"""Per-class thresholds: how they are fitted on labelled clips, and how they make logits into labels.

A class is called in a segment when its logit is strictly above the class threshold and the weak label of
the clip names the class.  Thresholds are fitted on validation clips, whose seconds are labelled; methods
that do so are therefore not purely weakly supervised.  A threshold may be -inf (the class is on whenever
the weak label has it) or +inf (never).

Source: UWAV (CVPR 2025), eqs. 11-12 and released code; VALOR (NeurIPS 2023), eq. 9, for the hard labels.
Departures: see best_f1.py for the sweep; and in `soft_labels`, for thresholds of -inf only, the release
takes the minimum logit of each mini-batch where this takes a fixed one given as `floor` (labels that are
stored cannot depend on batches; pass the `class_minimum` of a batch to repeat the release).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avvp_pipe.stages.blocks.best_f1 import Curve, NoPositives, ThresholdFit, Ties, best_f1_threshold
from avvp_pipe.stages.blocks.cells import Cells, OutsideWeak, cells_of
from avvp_pipe.stages.blocks.checks import as_bool, require_choice, valid_segments

__all__ = [
    "Calibration",
    "Curve",
    "Logits",
    "Mode",
    "NoPositives",
    "OutsideWeak",
    "ThresholdFit",
    "Ties",
    "WithoutPositives",
    "best_f1_threshold",
    "calibrate",
    "class_minimum",
    "hard_labels",
    "measure",
    "soft_labels",
    "stack_curves",
]

Mode = Literal["per-class", "class-agnostic"]
WithoutPositives = Literal["never", "always", "pooled", "error"]
Logits = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds of one modality, what they achieve on the clips they were fitted on, and how they came."""

    thresholds: NDArray[np.float32]
    """(C,), may hold -inf and +inf; all equal when class-agnostic."""
    precision: NDArray[np.float64]
    """(C,) in [0, 1], by the strict comparison itself; NaN where nothing is called."""
    recall: NDArray[np.float64]
    """(C,) in [0, 1]; NaN where the class has no positive."""
    f1: NDArray[np.float64]
    """(C,) in [0, 1]; NaN where the class has no positive and nothing is called."""
    fits: tuple[ThresholdFit, ...]
    """One sweep a class with its curve, or a single one when class-agnostic."""
    failed_clips: tuple[int, ...]
    """Rows left out because they hold no logits, only NaN."""

    @property
    def undefined(self) -> tuple[int, ...]:
        """Sweeps (classes, unless class-agnostic) that found no positive, whose threshold is the guard's."""
        return tuple(index for index, fit in enumerate(self.fits) if fit.undefined)


def calibrate(
    logits: Logits,
    labels: ArrayLike,
    weak: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    mode: Mode = "per-class",
    positives_outside_weak: OutsideWeak = "count",
    ties: Ties = "distinct",
    no_positives: WithoutPositives = "never",
) -> Calibration:
    """Fit the best-F1 threshold of every class, or one for all, over the segments of all clips.

    logits (N, T, C), labels (N, T, C) bool, weak (N, C) bool; lengths (N,) integers, None for all T.
    Clips whose segments are all NaN (they failed) are left out and listed; a NaN elsewhere is an error.
    Positives outside the weak label can never be called: "count" lets them cost recall, as the release
    does, "ignore" takes them for negatives.  ties: see best_f1.py.
    no_positives, of a class without a positive to call: "never" is +inf, "always" -inf (as released), "pooled" the
    threshold of all classes together, "error" raises.
    """
    require_choice("mode", mode, Mode)
    cells = cells_of(logits, labels, weak, lengths=lengths, positives_outside_weak=positives_outside_weak)
    fits = _fits(cells.pooled if mode == "class-agnostic" else cells, ties, no_positives)
    found = [fit.threshold for fit in fits]
    if no_positives == "pooled" and any(fit.undefined for fit in fits):
        (shared,) = _fits(cells.pooled, ties, "never")
        found = [shared.threshold if fit.undefined else fit.threshold for fit in fits]
    thresholds = np.full(logits.shape[2], found, dtype=np.float32)
    return _calibration(cells, thresholds, fits)


def measure(
    logits: Logits,
    labels: ArrayLike,
    weak: ArrayLike,
    thresholds: Logits,
    *,
    lengths: ArrayLike | None = None,
    positives_outside_weak: OutsideWeak = "count",
) -> Calibration:
    """What thresholds (C,) that came from elsewhere achieve; arguments and sweeps as of `calibrate`, per class."""
    cells = cells_of(logits, labels, weak, lengths=lengths, positives_outside_weak=positives_outside_weak)
    return _calibration(cells, np.asarray(thresholds, np.float32), _fits(cells, "distinct", "never"))


def hard_labels(logits: Logits, thresholds: Logits, weak: ArrayLike) -> NDArray[np.bool_]:
    """Call a class where its logit is above its threshold and the weak label names it.

    logits (..., T, C), thresholds (C,), weak (..., C) bool -> (..., T, C) bool.  NaN logits call nothing.

    >>> hard_labels(np.array([[0.4, 0.9], [0.1, 0.9]]), np.array([0.3, 0.3]), [True, False])
    array([[ True, False],
           [False, False]])
    """
    z, theta, named = _aligned(logits, thresholds, weak)
    called: NDArray[np.bool_] = (z > theta) & named
    return called


def soft_labels(
    logits: Logits,
    thresholds: Logits,
    weak: ArrayLike,
    *,
    temperature: float = 2.0,
    floor: Logits | None = None,
) -> NDArray[np.float32]:
    """Probability sigmoid((logit - threshold) / temperature) where the weak label names the class, else 0.

    logits (..., T, C), thresholds (C,), weak (..., C) bool -> (..., T, C) float32 in [0, 1]: 0.5 at the
    threshold, where `hard_labels` switches.  temperature > 0: 2 as released, 1 as in UWAV eq. 12.
    floor (C,): lowest logit of each class (`class_minimum` of the training split); a threshold of -inf is
    taken to be floor - 1, and logits below the floor (of other clips) to be the floor, so that such labels are at
    least sigmoid(1 / temperature), as in the release.  A threshold of +inf gives 0, and so do NaN logits: no
    evidence, no label.  A label is above 0.5 just where `hard_labels` calls, also where rounding would make it 0.5.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, but is {temperature}")
    z, theta, named = _aligned(logits, thresholds, weak)
    if np.isneginf(theta).any():
        theta, least = _finite_from_below(theta, floor)
        z = np.maximum(z, least)
    known = named & ~np.isnan(z) & ~np.isposinf(theta)
    margin = np.subtract(z, theta, out=np.zeros_like(z), where=known) / np.float32(temperature)
    # The logistic function by tanh, which cannot overflow.
    soft = np.where(known, 0.5 + 0.5 * np.tanh(margin / 2), 0.0).astype(np.float32)
    return np.where((soft == 0.5) & (z > theta), np.nextafter(np.float32(0.5), np.float32(1)), soft)


def class_minimum(logits: Logits, *, lengths: ArrayLike | None = None) -> NDArray[np.float32]:
    """Lowest logit of each class over all clips, whatever their weak labels: (N, T, C) -> (C,) float32.

    Padding beyond lengths and NaN (failed clips) do not count; +inf when nothing is left, so that the
    minimum of several parts is the minimum of their minima.
    """
    valid = valid_segments(lengths, clips=logits.shape[0], segments=logits.shape[1])
    kept = np.where(valid[:, :, None] & ~np.isnan(logits), logits, np.inf)
    minimum: NDArray[np.float32] = kept.min(axis=(0, 1), initial=np.inf).astype(np.float32)
    return minimum


def stack_curves(curves: Sequence[Curve]) -> NDArray[np.float32]:
    """Put curves of different lengths into one array to store: (4, len(curves), K), NaN at the end.

    The first axis is thresholds, precision, recall, F1; K is the length of the longest curve.
    """
    longest = max((len(curve.f1) for curve in curves), default=0)
    table = np.full((4, len(curves), longest), np.nan, dtype=np.float32)
    for row, curve in enumerate(curves):
        table[:, row, : len(curve.f1)] = curve.thresholds, curve.precision, curve.recall, curve.f1
    return table


def _calibration(cells: Cells, thresholds: NDArray[np.float32], fits: tuple[ThresholdFit, ...]) -> Calibration:
    precision, recall, f1 = _achieved(cells.logits > thresholds, cells.labels)
    return Calibration(thresholds, precision, recall, f1, fits, cells.failed)


def _fits(cells: Cells, ties: Ties, no_positives: WithoutPositives) -> tuple[ThresholdFit, ...]:
    """Sweep every column; an error names all columns that have none, not the first alone."""
    require_choice("no_positives", no_positives, WithoutPositives)
    rule: NoPositives = "always" if no_positives == "always" else "never"
    columns = zip(cells.logits.T, cells.labels.T, strict=True)
    fits = tuple(best_f1_threshold(z, y, ties=ties, no_positives=rule) for z, y in columns)
    undefined = [column for column, fit in enumerate(fits) if fit.undefined]
    if undefined and no_positives == "error":
        raise ValueError(
            f"no threshold has an F1 for classes {undefined}: no positive lies in a clip whose weak label "
            'names the class; calibrate on more clips, or choose no_positives="never", "always" or "pooled"'
        )
    return fits


def _achieved(
    called: NDArray[np.bool_], truth: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each class, (C,) each, from (M, C) decisions."""
    found = np.count_nonzero(called & truth, axis=0)
    calls, positives = np.count_nonzero(called, axis=0), np.count_nonzero(truth, axis=0)
    with np.errstate(invalid="ignore"):
        return found / calls, found / positives, 2 * found / (calls + positives)


def _aligned(
    logits: Logits, thresholds: Logits, weak: ArrayLike
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Logits (..., T, C), thresholds (C,) and weak (..., 1, C), ready to broadcast."""
    z, theta = np.asarray(logits, dtype=np.float32), np.asarray(thresholds, dtype=np.float32)
    named = as_bool("weak", weak)
    if z.ndim < 2 or theta.shape != z.shape[-1:] or named.shape != z.shape[:-2] + z.shape[-1:]:
        raise ValueError(
            "logits (..., T, C) go with thresholds (C,) and weak (..., C), but came as "
            f"{z.shape}, {theta.shape} and {named.shape}"
        )
    if np.isnan(theta).any():
        raise ValueError(f"the thresholds of classes {np.flatnonzero(np.isnan(theta)).tolist()} are NaN")
    return z, theta, named[..., None, :]


def _finite_from_below(
    theta: NDArray[np.float32], floor: Logits | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Thresholds with floor - 1 for those of -inf, and the least that logits are taken to be: floor, or -inf."""
    open_below = np.isneginf(theta)
    if floor is None or np.shape(floor) != theta.shape or not np.isfinite(floor[open_below]).all():
        raise ValueError(
            f"the thresholds of classes {np.flatnonzero(open_below).tolist()} are -inf, which has no soft "
            f"label without a finite floor of shape {theta.shape}; pass class_minimum of the training split"
        )
    stand_in = np.where(open_below, floor - 1.0, theta).astype(np.float32)
    return stand_in, np.where(open_below, floor, -np.inf).astype(np.float32)
