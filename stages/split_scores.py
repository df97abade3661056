"""What `evaluate` counts in the clips of one split whose seconds are labelled in one way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import JOINT, OK, SEPARATE

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.calibration_error import Reliability
    from avvp_pipe.stages.metrics import LabelCounts, Pooling
    from avvp_pipe.stages.stage import Progress
    from avvp_pipe.store import Artifact

__all__ = ["MODALITIES", "Scored", "document_of", "score_split"]

MODALITIES = ("audio", "visual")
DENSE = {SEPARATE: "separate", JOINT: "joint"}
POOLINGS: "tuple[Literal['official'], Literal['micro'], Literal['class-macro']]" = ("official", "micro", "class-macro")
Labels = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Errors = Mapping[str, float | None]
"""Modality -> expected calibration error; None where there is none."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What was counted in the clips of one split whose seconds are labelled in one way."""

    split: str
    dense: int
    clips: int
    left_out: int
    counts: "Mapping[str, LabelCounts]"
    """`of` the predictions, `video_labels` everywhere, `nothing`."""
    confusion: NDArray[np.int64]
    """(4, 4, C), of `modality_confusion`; zeros where the truth of single modalities is not known."""
    reliability: "Mapping[str, Reliability | None]"
    """Of soft predictions by modality, over the cells that they can be in; empty likewise."""
    named_error: Errors
    """Over the cells of the weak labels' classes alone; empty likewise."""
    accuracy: Mapping[str, float]
    """Percent, of the same sets as `counts`; empty where modalities are labelled apart or seconds have two classes."""


def score_split(
    dataset: "Artifact", predictions: "Artifact", split: str, dense: int, progress: "Progress"
) -> Scored | None:
    """Hold the predictions for one split against the truth; None where there is none."""
    from avvp_pipe.stages.metrics import label_counts
    from avvp_pipe.store.rows import take_rows

    labelled = (np.array(dataset.strings("splits"), dtype=str) == split) & (dataset.array("dense") == dense)
    rows = np.flatnonzero(labelled & (predictions.array("status") == OK))
    if not len(rows):
        return None
    if left_out := int(labelled.sum()) - len(rows):
        progress.note(f"{split}: {left_out} clips failed and are left out of the scores")
    heard, seen = (take_rows(predictions, f"{modality}_hard", rows) for modality in MODALITIES)
    if dense == JOINT:  # heard and seen alike, so that their product is what it is
        heard = seen = heard & seen
    truths = ("audio_visual", "audio_visual") if dense == JOINT else MODALITIES
    truth = (take_rows(dataset, truths[0], rows), take_rows(dataset, truths[1], rows))
    weak, lengths = dataset.array("weak")[rows], dataset.array("lengths")[rows]
    everywhere, nothing = np.broadcast_to(weak[:, None], heard.shape), np.zeros_like(heard)
    sets = {"of": (heard, seen), "video_labels": (everywhere, everywhere), "nothing": (nothing, nothing)}
    counts = {name: label_counts(*pair, *truth, lengths) for name, pair in sets.items()}
    soft = {modality: _soft(predictions, modality, rows) for modality in MODALITIES}
    facts = (split, dense, len(rows), left_out, counts)
    if dense == JOINT:
        accuracy = _accuracies({name: pair[0] for name, pair in sets.items()}, soft, truth[0], lengths)
        return Scored(*facts, np.zeros((4, 4, heard.shape[2]), np.int64), {}, {}, accuracy)
    return Scored(*facts, *_of_modalities(predictions, (heard, seen), soft, truth, weak, lengths), {})


def _soft(predictions: "Artifact", modality: str, rows: NDArray[np.intp]) -> Floats | None:
    from avvp_pipe.store.rows import take_rows
    from avvp_pipe.store.schema import soft_name

    name = soft_name(predictions, modality)
    return None if name is None else take_rows(predictions, name, rows)


def _of_modalities(
    predictions: "Artifact",
    called: tuple[Labels, Labels],
    soft: Mapping[str, Floats | None],
    truth: tuple[Labels, Labels],
    weak: Labels,
    lengths: NDArray[Any],
) -> "tuple[NDArray[np.int64], dict[str, Reliability | None], Errors]":
    """Confusion, reliability and error within the weak label, where audio and vision are labelled apart."""
    from avvp_pipe.stages.blocks.quality import modality_confusion
    from avvp_pipe.stages.generators.cuts import allowed

    weak_filter: Any = predictions.attrs.get("weak_filter", "both" if predictions.kind == "labels" else "none")
    bins, named = {}, {}
    for modality, true in zip(MODALITIES, truth, strict=True):
        scope = allowed(weak, weak_filter, modality)
        bins[modality] = _reliability(soft[modality], true, scope, lengths)
        same = np.array_equal(scope, weak)
        named[modality] = _error(bins[modality] if same else _reliability(soft[modality], true, weak, lengths))
    return modality_confusion(called, truth, lengths), bins, named


def _reliability(soft: Floats | None, truth: Labels, named: Labels, lengths: NDArray[Any]) -> "Reliability | None":
    """Over the cells of the classes that are named, (N, C); None where there is nothing to compare."""
    from avvp_pipe.stages.blocks.calibration_error import reliability

    return None if soft is None or not named.any() else reliability(soft, truth, weak=named, lengths=lengths)


def _error(found: "Reliability | None") -> float | None:
    return None if found is None else found.error


def _accuracies(
    sets: Mapping[str, Labels], soft: Mapping[str, Floats | None], truth: Labels, lengths: NDArray[Any]
) -> dict[str, float]:
    """AVE's measure of each set (N, T, C), by name; of several classes in a second counts the first, or in the
    predictions the one of the highest sum of probabilities. Empty where a true second has several."""
    from avvp_pipe.stages.ave_accuracy import ave_accuracy, class_indices, one_a_second

    if truth.sum(axis=2).max() > 1:
        return {}
    equal = np.zeros(truth.shape)
    of = sum((each for each in soft.values() if each is not None), start=equal)
    return {
        name: ave_accuracy(
            class_indices(one_a_second(on, of if name == "of" else equal)), class_indices(truth), lengths=lengths
        )
        for name, on in sets.items()
    }


def document_of(one: Scored, chosen: "Pooling") -> dict[str, Any]:
    """One split as attributes: the chosen pooling as `of` and the baselines, all of them under `pooled`."""
    from avvp_pipe.stages.metrics import scores_of

    def table(counts: "LabelCounts", pooling: "Pooling") -> dict[str, dict[str, float]]:
        kept = {"AV"} if one.dense == JOINT else None
        return {
            level: {metric: value for metric, value in scores.items() if kept is None or metric in kept}
            for level, scores in scores_of(counts, pooling).items()
        }

    pooled = {pooling: {name: table(counts, pooling) for name, counts in one.counts.items()} for pooling in POOLINGS}
    facts = {"split": one.split, "dense": DENSE[one.dense], "clips": one.clips, "left_out": one.left_out}
    calibration = {
        "calibration_error": {modality: _error(found) for modality, found in one.reliability.items()},
        "calibration_error_named": dict(one.named_error),
    }
    accuracy = {"accuracy": dict(one.accuracy)} if one.accuracy else {}
    return {**facts, **pooled[chosen], "pooled": pooled, **calibration, **accuracy}
