"""The threshold at which one class scores its best F1, and the whole curve it was chosen from.

Every threshold that can make a difference lies between two neighbouring values of the logits, so the
sweep is exact: sort once, and read off how many positives lie above each value.

    logits      -2   -1   -1    3        a positive is called where logit > threshold
    candidates  |    |          |
    threshold  -inf -1.5        1.0      midway to the value below; -inf calls every finite logit

Source: UWAV (CVPR 2025), released threshold search.  Departures, both switchable:

* `ties="distinct"` (default) sweeps distinct finite logits only, so that the F1 in the curve is the F1
  that `logit > threshold` achieves.  The release sweeps every position of the sorted array: inside a
  run of equal logits its best position depends on the order in which torch.sort leaves equals, and the
  strict comparison then drops the whole run.  `ties="released"` repeats that, order included.
* a class without a positive that any threshold could call has no best F1.  The release falls through a
  NaN to -inf, which calls everything; that is `no_positives="always"`.  The default, "never", is +inf.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avvp_pipe.stages.blocks.checks import as_bool, require_choice

__all__ = ["Curve", "NoPositives", "ThresholdFit", "Ties", "best_f1_threshold"]

Ties = Literal["distinct", "released"]
NoPositives = Literal["never", "always", "error"]

_Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision, recall and F1 at every candidate threshold, lowest threshold first; (K,) each."""

    thresholds: NDArray[np.float32]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """The best threshold of one class; precision, recall and f1 in [0, 1] are the curve's there."""

    threshold: float
    """-inf calls every finite logit, +inf none."""
    f1: float
    """NaN, like precision and recall, when there is no positive to find."""
    precision: float
    recall: float
    positives: int
    """All positives, also those at -inf, which no threshold can call and which cost recall."""
    curve: Curve

    @property
    def undefined(self) -> bool:
        """Whether no threshold could call any positive, so that the guard `no_positives` decided."""
        return bool(np.isnan(self.f1))


def best_f1_threshold(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    ties: Ties = "distinct",
    no_positives: NoPositives = "never",
) -> ThresholdFit:
    """Find the threshold whose strict comparison `logit > threshold` scores the best F1.

    logits (M,) in float32; -inf is a segment that may not be called, because the weak label of its clip
    lacks the class.  NaN and +inf are refused.  labels (M,) bool.  Of equal F1 the lowest threshold wins.

    >>> fit = best_f1_threshold([-2.0, -1.0, -1.0, 3.0], [0, 1, 1, 1])
    >>> fit.threshold, fit.f1
    (-1.5, 1.0)
    """
    require_choice("ties", ties, Ties)
    require_choice("no_positives", no_positives, NoPositives)
    values, truth = _checked(logits, labels)
    positives = int(truth.sum())
    if not (truth & np.isfinite(values)).any():
        return _without_positives(no_positives, positives)
    order = _torch_order(values) if ties == "released" else np.argsort(values, kind="stable")
    values, truth = values[order], truth[order]
    rises = values > _shifted(values)
    curve = _sweep(values, truth, np.arange(len(values)) if ties == "released" else np.flatnonzero(rises))
    best = int(curve.f1.argmax())
    return ThresholdFit(
        threshold=float(curve.thresholds[best]),
        f1=float(curve.f1[best]),
        precision=float(curve.precision[best]),
        recall=float(curve.recall[best]),
        positives=positives,
        curve=curve,
    )


def _sweep(values: _Vector, truth: NDArray[np.bool_], places: NDArray[np.int64]) -> Curve:
    """Score "call everything from this place upwards" for each place in the sorted values."""
    called = len(values) - places
    found = np.cumsum(truth[::-1])[::-1][places]
    total = truth.sum()
    return Curve(
        thresholds=_midpoints(values, places),
        precision=found / called,
        recall=found / total,
        # 2pr / (p + r) in whole numbers, so that equal scores compare equal.
        f1=2 * found / (called + total),
    )


def _midpoints(values: _Vector, places: NDArray[np.int64]) -> _Vector:
    """Halfway from the value below each place to the value there; -inf below the first."""
    here = values[places]
    below = _shifted(values)[places]
    middle = ((here.astype(np.float64) + below) / 2).astype(np.float32)
    # Between neighbouring floats the middle rounds to one of them; the upper one would not be called.
    return np.where(middle < here, middle, below)


def _shifted(values: _Vector) -> _Vector:
    """The value below each one in the sorted array; -inf below the first."""
    return np.concatenate((np.array([-np.inf], dtype=np.float32), values[:-1]))


def _torch_order(values: _Vector) -> NDArray[np.int64]:
    """Order as the release does: torch.sort, whose order among equals no other sort repeats."""
    import torch

    order: NDArray[np.int64] = torch.sort(torch.tensor(values)).indices.numpy()
    return order


def _without_positives(rule: NoPositives, positives: int) -> ThresholdFit:
    if rule == "error":
        raise ValueError(
            f"no threshold has an F1: of {positives} positives none has a finite logit; "
            'take validation clips of this class, or choose no_positives="never" or "always"'
        )
    nothing = np.empty(0)
    return ThresholdFit(
        threshold=np.inf if rule == "never" else -np.inf,
        f1=np.nan,
        precision=np.nan,
        recall=np.nan,
        positives=positives,
        curve=Curve(nothing.astype(np.float32), nothing, nothing, nothing),
    )


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[_Vector, NDArray[np.bool_]]:
    values, truth = np.asarray(logits, dtype=np.float32), as_bool("labels", labels)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(
            "logits and labels must share one shape (M,), but came as "
            f"{values.shape} and {truth.shape}; flatten clips and segments first"
        )
    if np.isnan(values).any() or np.isposinf(values).any():
        raise ValueError(
            f"logits must be finite, or -inf for what may not be called, but {np.isnan(values).sum()} are NaN "
            f"and {np.isposinf(values).sum()} are +inf; leave failed clips out"
        )
    return values, truth
