"""Stage `evaluate`: labels or a parser's predictions held against dense labels, and against another set of labels.

    hard predictions (N, T, C) of both modalities, dense labels (N, T, C) -> percentages per split, in three poolings
    soft predictions                                                      -> expected calibration error
    hard predictions of every clip, weak labels (N, C)                    -> label rates, class by class
    hard predictions of another artifact                                  -> agreement and Cohen's kappa

Beside the scores always the two trivial baselines, since CoLeaF's audio-only and visual-only scores reward silence.
Where only what is heard and seen at once is labelled (UnAV-100), AV alone is scored: of the product of both
modalities, as UWAV's released code selects its generator.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import JOINT, OK, SEPARATE, check_same_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.metrics import LabelCounts
    from avvp_pipe.store import Artifact, Builder

SPLITS = ("train", "val", "test")
MODALITIES = ("audio", "visual")
DENSE = {SEPARATE: "separate", JOINT: "joint"}
POOLINGS: "tuple[Literal['official'], Literal['micro'], Literal['class-macro']]" = ("official", "micro", "class-macro")


@dataclass(frozen=True, slots=True)
class Params:
    """How to count."""

    pooling: Literal["official", "micro", "class-macro"] = option(
        "official", "What comes first: per clip and class as the field reports, or pooled over all clips. All are told."
    )


@dataclass(frozen=True, slots=True)
class _Scored:
    """What was counted in the clips of one split whose seconds are labelled in one way."""

    split: str
    dense: int
    clips: int
    left_out: int
    counts: "dict[str, LabelCounts]"
    """`of` the predictions, `video_labels` everywhere, `nothing`."""
    calibration_error: dict[str, float | None]


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Score each split whose seconds are labelled; tell of all clips how much is labelled, and who agrees."""
    dataset, predictions = inputs["dataset"], inputs["predictions"]
    for one in (predictions, *([inputs["against"]] if "against" in inputs else [])):
        _check_pair(one, dataset)
    every = (_score_split(dataset, predictions, split, dense, progress) for split in SPLITS for dense in DENSE)
    scored = [one for one in every if one]
    if not scored and "against" not in inputs:
        raise StoreError(
            f"{dataset.reference} has no clips in {' or '.join(SPLITS)} whose seconds are labelled; "
            "without them, labels can only be compared with others: --against labels/OTHERS"
        )
    out.describe(
        what=predictions.kind,
        method=str(predictions.attrs.get("method", predictions.name)),
        classes=list(dataset.attrs["classes"]),
        pooling=params.pooling,
        annotations=dict(dataset.provenance.get("sources", {})),
        scores=[_document(one, params) for one in scored],
    )
    _put_scores(out, scored, params, len(dataset.attrs["classes"]))
    _put_whole(out, inputs)


def _check_pair(predictions: "Artifact", dataset: "Artifact") -> None:
    if "audio_hard" not in predictions:
        raise StoreError(
            f"{predictions.reference} holds a parser and nothing that it predicted, as imported ones do; run it with "
            "`avvp-pipe parse` and score the predictions"
        )
    check_same_clips(predictions, dataset)
    if list(predictions.attrs.get("classes", ())) != list(dataset.attrs["classes"]):
        raise StoreError(
            f"{predictions.reference} and {dataset.reference} have different classes, or the same in another order; "
            "use artifacts that were made from one dataset (`avvp-pipe diff` compares labels of different ones)"
        )
    shape, wanted = predictions.facts("audio_hard").shape, dataset.facts("audio").shape
    if shape != wanted or not np.array_equal(predictions.array("lengths"), dataset.array("lengths")):
        raise StoreError(
            f"{predictions.reference} is of clips of other lengths than {dataset.reference} has ({shape} and {wanted} "
            "clips, seconds, classes); use artifacts that were made from one dataset"
        )


def _score_split(
    dataset: "Artifact", predictions: "Artifact", split: str, dense: int, progress: Progress
) -> _Scored | None:
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
    truth = [take_rows(dataset, name, rows) for name in truths]
    everywhere = np.broadcast_to(dataset.array("weak")[rows][:, None], heard.shape)
    nothing = np.zeros_like(heard)
    lengths = dataset.array("lengths")[rows]
    sets = {"of": (heard, seen), "video_labels": (everywhere, everywhere), "nothing": (nothing, nothing)}
    counts = {name: label_counts(*pair, truth[0], truth[1], lengths) for name, pair in sets.items()}
    errors = _calibration_errors(dataset, predictions, rows, truth) if dense == SEPARATE else {}
    return _Scored(split, dense, len(rows), left_out, counts, errors)


def _calibration_errors(
    dataset: "Artifact", predictions: "Artifact", rows: NDArray[np.intp], truth: list[NDArray[np.bool_]]
) -> dict[str, float | None]:
    """Of the soft labels, over the cells that a label could be in; None where there are none."""
    from avvp_pipe.stages.blocks.calibration_error import expected_calibration_error
    from avvp_pipe.stages.generators.cuts import allowed
    from avvp_pipe.store.rows import take_rows
    from avvp_pipe.store.schema import soft_name

    weak, lengths = dataset.array("weak")[rows], dataset.array("lengths")[rows]
    weak_filter = predictions.attrs.get("weak_filter", "both" if predictions.kind == "labels" else "none")
    found: dict[str, float | None] = {}
    for modality, true in zip(MODALITIES, truth, strict=True):
        named = allowed(weak, weak_filter, modality)
        name = soft_name(predictions, modality) if named.any() else None
        soft = None if name is None else take_rows(predictions, name, rows)
        found[modality] = None if soft is None else expected_calibration_error(soft, true, weak=named, lengths=lengths)
    return found


def _document(one: _Scored, params: Params) -> dict[str, Any]:
    """One split as attributes: the chosen pooling as `of` and the baselines, all of them under `pooled`."""
    from avvp_pipe.stages.metrics import scores_of

    def table(counts: "LabelCounts", pooling: Any) -> dict[str, dict[str, float]]:
        kept = {"AV"} if one.dense == JOINT else None
        return {
            level: {metric: value for metric, value in scores.items() if kept is None or metric in kept}
            for level, scores in scores_of(counts, pooling).items()
        }

    pooled = {pooling: {name: table(counts, pooling) for name, counts in one.counts.items()} for pooling in POOLINGS}
    facts = {"split": one.split, "dense": DENSE[one.dense], "clips": one.clips, "left_out": one.left_out}
    return {**facts, **pooled[params.pooling], "pooled": pooled, "calibration_error": one.calibration_error}


def _put_scores(out: "Builder", scored: list[_Scored], params: Params, classes: int) -> None:
    """scores (S, 2, 9) percent, NaN where a metric is not known; class_counts (S, 2, 3, 3, C) of the predictions."""
    from avvp_pipe.stages.blocks.quality import VIEWS, class_counts
    from avvp_pipe.stages.metrics import LEVELS, METRICS, scores_of

    scores = np.full((len(scored), len(LEVELS), len(METRICS)), np.nan)
    counts = np.zeros((len(scored), len(LEVELS), len(VIEWS), 3, classes), np.int64)
    for place, one in enumerate(scored):
        found = scores_of(one.counts["of"], params.pooling)
        scores[place] = [list(found[level].values()) for level in LEVELS]
        counts[place] = class_counts(one.counts["of"])
        if one.dense == JOINT:
            scores[place][:, [name != "AV" for name in METRICS]] = np.nan
            counts[place][:, [view != "AV" for view in VIEWS]] = 0
    out.put("splits", [one.split for one in scored])
    out.put("metrics", list(METRICS))
    out.put("scores", scores)
    out.put("class_counts", counts)


def _put_whole(out: "Builder", inputs: Inputs) -> None:
    """What is said of all clips: tally (R, 2, 5, C) of each split, agreement (2, 2, 4, C) with another set.

    The first axis of agreement: all cells, those that the weak labels name.
    """
    from avvp_pipe.stages.blocks.quality import agreement_counts, tally_counts

    dataset, against = inputs["dataset"], inputs.get("against")
    names, known = np.array(dataset.strings("splits"), dtype=str), dataset.array("dense") == SEPARATE
    splits = [split for split in SPLITS if (names == split).any()]
    classes = len(dataset.attrs["classes"])
    tally = np.zeros((len(splits), 2, 5, classes), np.int64)
    agreement = np.zeros((2, 2, 4, classes), np.int64)
    clips = 0
    for rows, weak, valid, labels in _blocks(inputs):
        for place, modality in enumerate(MODALITIES):
            hard, truth, other = labels[modality]
            for split, of_split in enumerate(names[rows] == name for name in splits):
                chosen = (hard, truth, weak, valid[0], known[rows])
                tally[split, place] += tally_counts(*(array[of_split] for array in chosen))
            if other is not None:
                there = valid[1][:, :, None]
                for kind, counted in enumerate((there, there & weak[:, None])):
                    agreement[kind, place] += agreement_counts(hard, other, counted)
        clips += int(valid[1].any(axis=1).sum())
    out.put("tally_splits", splits)
    out.put("tally", tally)
    if against is not None:
        out.put("agreement", agreement)
        out.describe(agreement={"against": str(against.reference), "clips": clips})


def _blocks(inputs: Inputs) -> Iterator[tuple[slice, NDArray[Any], list[NDArray[Any]], dict[str, Any]]]:
    """All clips, so many at a time: rows, weak (B, C), two valid (B, T), and by modality hard, truth and other hard.

    valid: seconds of clips that did not fail in the predictions, and of those that failed in neither set.
    """
    from avvp_pipe.store.rows import block_rows, spans

    dataset, predictions, against = inputs["dataset"], inputs["predictions"], inputs.get("against")
    weak, lengths, status = dataset.array("weak"), dataset.array("lengths"), predictions.array("status") == OK
    both = status if against is None else status & (against.array("status") == OK)
    segments = np.arange(predictions.facts("audio_hard").shape[1])
    size = block_rows(*(predictions.lazy(f"{modality}_hard") for modality in MODALITIES))
    for start, stop in spans(len(weak), size):
        rows = slice(start, stop)
        there = segments < lengths[rows, None]
        valid = [there & status[rows, None], there & both[rows, None]]
        labels = {
            modality: (
                predictions.rows(f"{modality}_hard", rows),
                dataset.rows(modality, rows),
                None if against is None else against.rows(f"{modality}_hard", rows),
            )
            for modality in MODALITIES
        }
        yield rows, weak[rows], valid, labels


STAGE = Stage(
    name="evaluate",
    kind="scores",
    version=2,
    summary="Score labels or a parser's predictions on the labelled splits.",
    reads={
        "predictions": Reads("labels|parser|predictions", "What to score.", argument=True),
        "dataset": Reads("dataset", "Dense labels."),
        "against": Reads("labels|parser|predictions", "Another set, to tell how far both agree.", required=False),
    },
    params=Params,
    run=run,
    example="avvp-pipe evaluate labels/mine-uwav --dataset dataset/mine",
)
# version 2: all poolings, classes, label rates, calibration error and agreement in one run; AV of joint labels
