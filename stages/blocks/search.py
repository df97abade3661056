"""The thresholds of one modality as they are stored: found or given, what they achieve, and how sure they are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.bootstrap import bootstrap_thresholds, spread
from avvp_pipe.stages.blocks.cells import OutsideWeak, cells_of
from avvp_pipe.stages.blocks.thresholds import (
    Calibration,
    Mode,
    Ties,
    WithoutPositives,
    calibrate,
    measure,
    stack_curves,
)

__all__ = ["Search", "arrays_of", "search", "unmeasured"]


@dataclass(frozen=True, slots=True)
class Search:
    """How thresholds are looked for; the words are those of `thresholds.calibrate`."""

    mode: Mode = "per-class"
    outside_weak: OutsideWeak = "count"
    ties: Ties = "distinct"
    no_positives: WithoutPositives = "never"
    bootstrap: int = 0
    """Draws of clips to fit thresholds on anew."""
    seed: int = 0


def search(
    logits: NDArray[np.float32],
    labels: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    lengths: NDArray[Any],
    how: Search,
    *,
    given: NDArray[np.float32] | None = None,
) -> tuple[Calibration, NDArray[np.float32] | None]:
    """Thresholds, and those of each bootstrap draw (B, C) where there are draws.

    logits (M, T, C), labels (M, T, C), weak (M, C): the classes that may be called, lengths (M,). given (C,):
    thresholds to measure instead of looking for any.
    """
    if given is not None:
        found = measure(logits, labels, weak, given, lengths=lengths, positives_outside_weak=how.outside_weak)
        return found, None
    found = calibrate(
        logits,
        labels,
        weak,
        lengths=lengths,
        mode=how.mode,
        positives_outside_weak=how.outside_weak,
        ties=how.ties,
        no_positives=how.no_positives,
    )
    if not how.bootstrap:
        return found, None
    samples = bootstrap_thresholds(
        cells_of(logits, labels, weak, lengths=lengths, positives_outside_weak=how.outside_weak),
        resamples=how.bootstrap,
        seed=how.seed,
        class_agnostic=how.mode == "class-agnostic",
        always=how.no_positives == "always",
    )
    return found, samples


def arrays_of(found: Calibration, samples: NDArray[np.float32] | None) -> dict[str, NDArray[Any]]:
    """Suffix of the stored array -> array."""
    arrays: dict[str, NDArray[Any]] = {
        "": found.thresholds,
        "_f1": found.f1,
        "_precision": found.precision,
        "_recall": found.recall,
        "_curves": stack_curves([fit.curve for fit in found.fits]),
    }
    return arrays if samples is None else {**arrays, "_bootstrap": samples, "_spread": spread(samples)}


def unmeasured(given: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The same of thresholds that no labelled clip is there to measure: NaN."""
    nothing = np.full(len(given), np.nan)
    return {"": given, "_f1": nothing, "_precision": nothing, "_recall": nothing}
