"""Whether soft labels mean what they say: of the cells called 0.7, are 70 % positive?

    probability   0.0 ....... 0.2 ....... 0.4 ...            equal-width bins
    in each bin   mean probability | share of positives | cells
    error         mean over cells of |mean probability - share of positives| of their bin

The expected calibration error of Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, Eq. 3, for
the probability of the positive class. Departure: a probability on the border of two bins belongs to the upper
one, so that 0 and 1 lie within the first and the last; the paper's bins are closed above.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avvp_pipe.stages.blocks.checks import as_bool, valid_segments

__all__ = ["BINS", "Reliability", "expected_calibration_error", "reliability"]

BINS = 15
"""As in the paper."""


class Reliability(NamedTuple):
    """What probabilities say and what is so, bin by bin of [0, 1]."""

    said: NDArray[np.float64]
    """(B,) mean probability of the cells in the bin; NaN where there is none."""
    found: NDArray[np.float64]
    """(B,) share of positives among them, likewise."""
    cells: NDArray[np.int64]
    """(B,)."""

    @property
    def error(self) -> float:
        """Expected calibration error, in [0, 1]."""
        there = self.cells > 0
        gaps = np.abs(self.said[there] - self.found[there])
        return float((gaps * self.cells[there]).sum() / self.cells.sum())


def expected_calibration_error(
    probabilities: NDArray[np.floating[Any]],
    labels: ArrayLike,
    *,
    weak: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    bins: int = BINS,
) -> float:
    """Expected calibration error in [0, 1] of soft labels; arguments as in `reliability`.

    >>> said = np.array([[[0.8], [0.8], [0.8], [0.8], [0.8]]])
    >>> round(expected_calibration_error(said, np.array([[[1], [1], [1], [1], [0]]])), 6)
    0.0
    """
    return reliability(probabilities, labels, weak=weak, lengths=lengths, bins=bins).error


def reliability(
    probabilities: NDArray[np.floating[Any]],
    labels: ArrayLike,
    *,
    weak: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    bins: int = BINS,
) -> Reliability:
    """Compare soft labels (N, T, C), in [0, 1], with dense labels (N, T, C), bool, bin by bin.

    weak (N, C): only cells whose class the weak label names count, elsewhere soft labels are 0 by definition and
    would only flatter; None for all. lengths (N,): seconds beyond them never count; None for all T.
    Cells whose probability is NaN (failed clips) are left out.
    Raises ValueError where shapes differ, a probability lies outside [0, 1], or no cell is left.
    """
    truth = as_bool("labels", labels)
    if probabilities.ndim != 3 or truth.shape != probabilities.shape:
        raise ValueError(
            f"probabilities and labels must share one shape (N, T, C), but came as {probabilities.shape} "
            f"and {truth.shape}"
        )
    if bins < 1:
        raise ValueError(f"there must be at least one bin, but bins = {bins}")
    clips, segments, _ = truth.shape
    counted = valid_segments(lengths, clips=clips, segments=segments)[:, :, None] & ~np.isnan(probabilities)
    if weak is not None:
        counted = counted & as_bool("weak", weak)[:, None, :]
    said, true = probabilities[counted].astype(np.float64), truth[counted]
    if not said.size:
        raise ValueError("no cell to compare: no valid second has a class of its weak label")
    if said.min() < 0 or said.max() > 1:
        raise ValueError(
            f"soft labels lie in [0, 1], but reach from {said.min():.4g} to {said.max():.4g}; "
            "give probabilities, not logits"
        )
    index = np.minimum((said * bins).astype(np.int64), bins - 1)
    cells = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return Reliability(
            np.bincount(index, weights=said, minlength=bins) / cells,
            np.bincount(index, weights=true, minlength=bins) / cells,
            cells,
        )
