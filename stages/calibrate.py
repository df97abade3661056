"""Stage `calibrate`: on validation clips, whose seconds are labelled, the threshold of best F1 for every class.

    logits (M, T, C) of a method, dense labels (M, T, C), weak labels (M, C) -> audio (C,), visual (C,)

The whole curve of F1 over thresholds is kept beside the chosen point. UWAV's released search, with the guards
that `blocks/best_f1.py` lists at its head.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators import method_logits
from avvp_pipe.stages.rows import SEPARATE, check_same_clips, rows_of
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.thresholds import Calibration
    from avvp_pipe.store import Artifact, Builder


@dataclass(frozen=True, slots=True)
class Params:
    """Whose logits to cut, and how."""

    method: Literal["valor", "uwav"] = option("valor", "Whose logits the thresholds are for.")
    mode: Literal["per-class", "class-agnostic"] = option("per-class", "One threshold a class, or one for all.")
    split: str = option("val", "Split to fit on; its seconds must be labelled.")
    outside_weak: Literal["count", "ignore"] = option(
        "count", "Positives outside the weak label: they cost recall (as released), or are left out."
    )
    ties: Literal["distinct", "released"] = option(
        "distinct", "Candidates: distinct logits, or every position of the sorted array as released."
    )
    no_positives: Literal["never", "always", "error"] = option(
        "never", "A class without positives: never label it, always (as released), or stop."
    )


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Fit both modalities and store thresholds, what they achieve, and the curves."""
    from avvp_pipe.stages.blocks.thresholds import calibrate, stack_curves

    dataset, features = inputs["dataset"], inputs["features"]
    check_same_clips(features, dataset)
    rows = labelled_rows(dataset, params.split, status=features.array("status"))
    logits = method_logits(params.method, features, inputs.get("generator"))
    classes = list(dataset.attrs["classes"])
    out.describe(classes=classes, method=params.method, clips=len(rows))
    out.put("classes", classes)
    weak, lengths = dataset.array("weak")[rows], dataset.array("lengths")[rows]
    for modality, values in logits._asdict().items():
        fitted = calibrate(
            values[rows],
            dataset.array(modality)[rows],
            weak,
            lengths=lengths,
            mode=params.mode,
            positives_outside_weak=params.outside_weak,
            ties=params.ties,
            no_positives=params.no_positives,
        )
        _warn(fitted, modality, classes, progress)
        out.put(modality, fitted.thresholds)
        out.put(f"{modality}_f1", fitted.f1)
        out.put(f"{modality}_precision", fitted.precision)
        out.put(f"{modality}_recall", fitted.recall)
        out.put(f"{modality}_curves", stack_curves([fit.curve for fit in fitted.fits]))


def _warn(fitted: "Calibration", modality: str, classes: list[str], progress: Progress) -> None:
    for index in fitted.undefined:
        name = classes[index] if len(fitted.fits) > 1 else "all classes"
        progress.note(f"{modality}: {name} has no positive to fit on; its threshold is {fitted.thresholds[index]}")


def labelled_rows(dataset: "Artifact", split: str, *, status: NDArray[Any]) -> NDArray[np.intp]:
    """Rows of a split whose audio and visual events are labelled second by second. Raises StoreError."""
    from avvp_pipe.store import StoreError

    rows = rows_of(dataset, split, status=status)
    labelled: NDArray[np.intp] = rows[dataset.array("dense")[rows] == SEPARATE]
    if not len(labelled):
        raise StoreError(
            f"no clip of split {split!r} in {dataset.reference} has its seconds labelled for audio and vision; "
            "calibrate needs such clips"
        )
    return labelled


STAGE = Stage(
    name="calibrate",
    kind="thresholds",
    version=1,
    summary="Fit the per-class thresholds of a method's logits on validation clips (best F1, exact).",
    reads={
        "dataset": Reads("dataset", "Weak and dense labels."),
        "features": Reads("features", "What the method sees and hears."),
        "generator": Reads("generator", "Temporal generator, for the methods that have one.", required=False),
    },
    params=Params,
    run=run,
    example="avvp-pipe calibrate --method valor --dataset dataset/mine --features features/mine",
)
