"""Stage `evaluate`: labels or a parser's predictions held against dense labels, by the official protocol.

    hard predictions (N, T, C) of both modalities, dense labels (N, T, C) -> percentages per split

Beside them always the two trivial baselines, since CoLeaF's audio-only and visual-only scores reward silence.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import OK, SEPARATE, check_same_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

SPLITS = ("val", "test")


@dataclass(frozen=True, slots=True)
class Params:
    """How to count."""

    pooling: Literal["official", "micro", "class-macro"] = option(
        "official", "Per clip and class as the field reports, or pooled over all clips (VALOR's Table 3: micro)."
    )


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Score each split whose seconds are labelled."""
    dataset, predictions = inputs["dataset"], inputs["predictions"]
    check_same_clips(predictions, dataset)
    scored = [one for split in SPLITS if (one := _score_split(dataset, predictions, split, params, progress))]
    if not scored:
        raise StoreError(f"{dataset.reference} has no clips in {' or '.join(SPLITS)} whose seconds are labelled")
    out.describe(
        what=predictions.kind,
        method=str(predictions.attrs.get("method", predictions.name)),
        pooling=params.pooling,
        scores=scored,
    )
    table = [[list(one["of"][level].values()) for level in ("segment", "event")] for one in scored]
    out.put("splits", [one["split"] for one in scored])
    out.put("metrics", list(scored[0]["of"]["segment"]))
    out.put("scores", np.array(table, np.float64))


def _score_split(
    dataset: "Artifact", predictions: "Artifact", split: str, params: Params, progress: Progress
) -> dict[str, Any] | None:
    from avvp_pipe.stages.metrics import avvp_scores

    labelled = (np.array(dataset.strings("splits"), dtype=str) == split) & (dataset.array("dense") == SEPARATE)
    rows = np.flatnonzero(labelled & (predictions.array("status") == OK))
    if not len(rows):
        return None
    if left_out := int(labelled.sum()) - len(rows):
        progress.note(f"{split}: {left_out} clips failed and are left out of the scores")
    truth = [dataset.array(modality)[rows] for modality in ("audio", "visual")]
    lengths = dataset.array("lengths")[rows]

    def score(heard: NDArray[Any], seen: NDArray[Any]) -> dict[str, Any]:
        return dict(avvp_scores(heard, seen, truth[0], truth[1], lengths, pooling=params.pooling))

    everywhere = np.broadcast_to(dataset.array("weak")[rows][:, None], truth[0].shape)
    nothing = np.zeros_like(truth[0])
    return {
        "split": split,
        "clips": len(rows),
        "left_out": left_out,
        "of": score(*(predictions.array(f"{modality}_hard")[rows] for modality in ("audio", "visual"))),
        "video_labels": score(everywhere, everywhere),
        "nothing": score(nothing, nothing),
    }


STAGE = Stage(
    name="evaluate",
    kind="scores",
    version=1,
    summary="Score labels or a parser's predictions on the labelled splits.",
    reads={
        "predictions": Reads("labels|parser", "What to score."),
        "dataset": Reads("dataset", "Dense labels."),
    },
    params=Params,
    run=run,
    example="avvp-pipe evaluate --predictions labels/mine-uwav --dataset dataset/mine",
)
