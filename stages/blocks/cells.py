"""The cells (clip, second, class) that thresholds are fitted on: masked by the weak labels, without what failed."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avvp_pipe.stages.blocks.checks import as_bool, require_choice, valid_segments

__all__ = ["Cells", "OutsideWeak", "cells_of"]

OutsideWeak = Literal["count", "ignore"]


@dataclass(frozen=True, slots=True)
class Cells:
    """M segments of clips that hold logits."""

    logits: NDArray[np.float32]
    """(M, C); -inf where the weak label of the clip lacks the class, so that no threshold calls it."""
    labels: NDArray[np.bool_]
    """(M, C)."""
    clips: NDArray[np.intp]
    """(M,) row of the clip that each segment belongs to."""
    failed: tuple[int, ...]
    """Rows left out because they hold no logits, only NaN."""

    @property
    def pooled(self) -> "Cells":
        """All classes as one: (M * C, 1)."""
        classes = self.logits.shape[1]
        return Cells(
            self.logits.reshape(-1, 1), self.labels.reshape(-1, 1), self.clips.repeat(classes), failed=self.failed
        )


def cells_of(
    logits: NDArray[np.floating[Any]],
    labels: ArrayLike,
    weak: ArrayLike,
    *,
    lengths: ArrayLike | None = None,
    positives_outside_weak: OutsideWeak = "count",
) -> Cells:
    """The segments that thresholds are fitted on.

    logits (N, T, C), labels (N, T, C) bool, weak (N, C) bool; lengths (N,) integers, None for all T.
    Clips whose segments are all NaN (they failed) are left out and listed; a NaN elsewhere is an error.
    positives_outside_weak: "count" keeps them as positives that cannot be called, "ignore" takes them for negatives.
    Raises ValueError where nothing is left.
    """
    require_choice("positives_outside_weak", positives_outside_weak, OutsideWeak)
    truth, named = as_bool("labels", labels), as_bool("weak", weak)
    if logits.ndim != 3 or truth.shape != logits.shape or named.shape != logits.shape[::2]:
        raise ValueError(
            "logits and labels must share one shape (N, T, C) and weak must be (N, C), but came as "
            f"{logits.shape}, {truth.shape} and {named.shape}"
        )
    valid = valid_segments(lengths, clips=logits.shape[0], segments=logits.shape[1])
    failed = _failed_clips(logits, valid)
    used = valid & ~failed[:, None]
    if not used.any():
        raise ValueError(
            f"no segment to calibrate on: {failed.sum()} of {len(failed)} clips hold no logits; "
            "check that the validation clips were extracted"
        )
    if positives_outside_weak == "ignore":
        truth = truth & named[:, None, :]
    masked = np.where(named[:, None, :], logits, -np.inf).astype(np.float32)
    return Cells(masked[used], truth[used], np.nonzero(used)[0], tuple(np.flatnonzero(failed).tolist()))


def _failed_clips(logits: NDArray[np.floating[Any]], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) bool: clips of nothing but NaN; half a clip of NaN is a fault upstream and is refused."""
    unknown = np.isnan(logits) & valid[:, :, None]
    failed: NDArray[np.bool_] = (unknown | ~valid[:, :, None]).all(axis=(1, 2))
    partly = unknown.any(axis=(1, 2)) & ~failed
    if partly.any():
        clip = int(np.flatnonzero(partly)[0])
        raise ValueError(
            f"clip {clip} has {unknown[clip].sum()} NaN among its logits (and {partly.sum() - 1} more clips "
            "do); a failed clip is NaN throughout, and lengths must leave out padding"
        )
    return failed
