"""Stage `evaluate`: labels or a parser's predictions held against dense labels, and against another set of labels.

    hard predictions (N, T, C) of both modalities, dense labels (N, T, C) -> percentages per split, in three poolings
    soft predictions                                                      -> expected calibration error, reliability
    hard predictions, by second and class                                 -> confusion between modalities
    hard predictions of every clip, weak labels (N, C)                    -> label rates, class by class
    hard predictions of another artifact                                  -> agreement and Cohen's kappa

Beside the scores always the two trivial baselines, since CoLeaF's audio-only and visual-only scores reward silence.
Where only what is heard and seen at once is labelled (UnAV-100), AV alone is scored: of the product of both
modalities, as UWAV's released code selects its generator; and where no second has two classes (AVE) accuracy.

A parser's hard predictions are decisions made as its paper makes them when it was trained or run (`parse` has other
ways); which ones is copied into the scores as `gate`, None for labels and where background is a class of its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import JOINT, OK, SEPARATE, check_same_clips
from avvp_pipe.stages.split_scores import MODALITIES, Scored, document_of, score_split
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.calibration_error import Reliability
    from avvp_pipe.store import Artifact, Builder

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Params:
    """How to count."""

    pooling: Literal["official", "micro", "class-macro"] = option(
        "official", "What comes first: per clip and class as the field reports, or pooled over all clips. All are told."
    )


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Score each split whose seconds are labelled; tell of all clips how much is labelled, and who agrees."""
    dataset, predictions = inputs["dataset"], inputs["predictions"]
    for one in (predictions, *([inputs["against"]] if "against" in inputs else [])):
        _check_pair(one, dataset)
    kinds = [(split, dense) for split in SPLITS for dense in (SEPARATE, JOINT)]
    every = [score_split(dataset, predictions, split, dense, progress) for split, dense in kinds]
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
        gate=None if predictions.attrs.get("background") else predictions.attrs.get("gate"),
        scores=[document_of(one, params.pooling) for one in scored],
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


def _put_scores(out: "Builder", scored: list[Scored], params: Params, classes: int) -> None:
    """scores (S, 2, 9) percent, NaN where a metric is not known; class_counts (S, 2, 3, 3, C) of the predictions;
    modality_confusion (S, 4, 4, C); reliability (S, 2, 3, 15): modalities; mean probability, share of positives and
    cells of each bin of [0, 1], NaN where there is none.
    """
    from avvp_pipe.stages.blocks.calibration_error import BINS
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
    confusion = [one.confusion for one in scored]
    out.put("modality_confusion", np.array(confusion, np.int64).reshape(-1, 4, 4, classes))
    bins = [_bins(one.reliability.get(modality)) for one in scored for modality in MODALITIES]
    out.put("reliability", np.array(bins, np.float64).reshape(-1, len(MODALITIES), 3, BINS))


def _bins(found: "Reliability | None") -> NDArray[np.float64]:
    """(3, 15), as `reliability` of `_put_scores`."""
    from avvp_pipe.stages.blocks.calibration_error import BINS

    if found is None:
        return np.array([np.full(BINS, np.nan)] * 2 + [np.zeros(BINS)])
    return np.array([found.said, found.found, found.cells.astype(np.float64)])


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
    version=3,
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
# version 3: confusion between modalities, reliability, accuracy where seconds have one class, the parser's decisions
