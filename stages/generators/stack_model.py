"""The calibrator of `stack`: a logistic regression whose classes share weights, and may each differ from them a little.

    logit[t, c] = intercept[c] + sum_j (weight[j] + deviation[c, j]) * column_j[t, c]

    fold        0  0  1  1  2  2 …          of the labelled clips, by their ids
    model k     is fitted on the folds other than k, and labels fold k
    last model  is fitted on all of them, and labels every other clip

What is minimised is cross-entropy, summed over cells, + (|weight|² + |deviation / spread|² + |intercept - common|²) /
(2 * strength): classes of which little is known fall back on what holds for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Logits
from avvp_pipe.stages.generators.stack_inputs import Cells, Floats, Units, column, in_units, units_of, valid_of
from avvp_pipe.stages.rows import by_lot

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MODALITIES = ("audio", "visual")


@dataclass(frozen=True, slots=True)
class Model:
    """Of one modality."""

    weights: Floats
    """(F,) of the columns, for all classes."""
    deviations: Floats
    """(C, F) what each class adds to them."""
    intercepts: Floats
    """(C,)."""


@dataclass(frozen=True, slots=True)
class Shrinkage:
    """How far from 0 a fit may go."""

    strength: float = 0.1
    """The variance that is expected of weights and intercepts."""
    spread: float = 0.3
    """The standard deviation that is expected of deviations, in those of weights; 0: classes do not differ."""


@dataclass(frozen=True, slots=True)
class Clips:
    """The logits of all teachers for N clips, and what is known of the clips."""

    teachers: Mapping[str, Logits]
    """(N, T, C) each."""
    weak: NDArray[np.bool_]
    """(N, C)."""
    lengths: NDArray[Any]
    """(N,)."""

    def of(self, rows: NDArray[Any]) -> "Clips":
        """Some of the clips."""
        chosen = {name: Logits(*(values[rows] for values in logits)) for name, logits in self.teachers.items()}
        return Clips(chosen, self.weak[rows], self.lengths[rows])

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N, T): seconds of which every teacher says something."""
        every = [valid_of(values, self.lengths) for logits in self.teachers.values() for values in logits]
        return np.asarray(np.logical_and.reduce(every))


TeacherUnits = Mapping[str, tuple[Units, Units]]
"""Teacher -> units of its audio and its visual logits."""


def folds_of(video_ids: Sequence[str], folds: int, *, seed: int) -> NDArray[np.int64]:
    """The fold of every clip, (N,): equal parts, in an order drawn by seed and id, whatever the clips' order.

    >>> folds_of(["a", "b", "c", "d"], 2, seed=0)
    array([1, 1, 0, 0])
    """
    place = np.empty(len(video_ids), np.int64)
    place[by_lot(video_ids, f"fold {seed}")] = np.arange(len(video_ids))
    return place % folds


def teacher_units(clips: Clips) -> TeacherUnits:
    """Units of every teacher and class, over these clips."""
    valid, weak = clips.valid, clips.weak
    return {
        name: (units_of(logits.audio, weak, valid), units_of(logits.visual, weak, valid))
        for name, logits in clips.teachers.items()
    }


def cells_of(clips: Clips, units: TeacherUnits, modality: str) -> Cells:
    """What the columns of one modality are made of."""
    valid, place = clips.valid, MODALITIES.index(modality)

    def standardised(index: int) -> dict[str, Floats]:
        return {name: in_units(logits[index], units[name][index], valid) for name, logits in clips.teachers.items()}

    return Cells(own=standardised(place), other=standardised(1 - place), valid=valid, weak=clips.weak)


def fit_model(
    names: Sequence[str], cells: Cells, truth: NDArray[np.bool_], allowed: NDArray[np.bool_], shrinkage: Shrinkage
) -> Model:
    """Fit on the cells whose class the clip may have: allowed (N, C), truth (N, T, C).

    Newton's method to its end in one thread: the same clips give the same bits on one machine, and the same weights
    up to rounding on any. Where all cells are positive, or none is, only the common intercept is not 0.
    """
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    counted = np.broadcast_to(allowed[:, None, :] & cells.valid[:, :, None], truth.shape)
    positive, classes, width = truth[counted], truth.shape[2], len(names)
    if positive.all() or not positive.any():
        odds = float(np.log((positive.sum() + 0.5) / ((~positive).sum() + 0.5)))
        return Model(np.zeros(width), np.zeros((classes, width)), np.full(classes, odds))
    columns = np.empty((len(positive), width))
    for place, name in enumerate(names):
        columns[:, place] = np.broadcast_to(column(name, cells), truth.shape)[counted]
    table = _design(columns, np.nonzero(counted)[2], classes, shrinkage.spread)
    regression = LogisticRegression(C=shrinkage.strength, solver="newton-cg", tol=1e-8, max_iter=1000)
    with threadpool_limits(1):
        regression.fit(table, positive)
    found = regression.coef_[0]
    own = found[width:].reshape(classes, width + 1)
    return Model(found[:width], own[:, :width] * shrinkage.spread, own[:, width] + regression.intercept_[0])


def scores(names: Sequence[str], cells: Cells, model: Model) -> NDArray[np.float32]:
    """Logits (N, T, C), NaN where not valid: a clip's depend on no other clip, to the last bit."""
    total = np.zeros((*cells.valid.shape, len(model.intercepts))) + model.intercepts
    weights = model.weights[:, None] + model.deviations.T
    for of_classes, name in zip(weights, names, strict=True):
        total += of_classes * column(name, cells)
    return np.where(cells.valid[:, :, None], total, np.nan).astype(np.float32)


def _design(columns: Floats, of_class: NDArray[np.int64], classes: int, spread: float) -> "csr_matrix":
    """The columns, and for each class a copy that is 0 in the cells of others, with a 1 for its intercept.

    columns (M, F), of_class (M,) -> (M, F + C * (F + 1)), mostly 0. The copies are `spread` times as large, so that
    one penalty serves all weights.
    """
    from scipy.sparse import csr_matrix

    cells, width = columns.shape
    own = np.hstack([columns * spread, np.ones((cells, 1))])
    places = width + of_class[:, None] * (width + 1) + np.arange(width + 1)
    indices = np.hstack([np.broadcast_to(np.arange(width), (cells, width)), places])
    starts = np.arange(cells + 1) * (2 * width + 1)
    values = np.hstack([columns, own])
    return csr_matrix((values.ravel(), indices.ravel(), starts), shape=(cells, width + classes * (width + 1)))
