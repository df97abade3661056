"""Stage `pseudolabel`: a method's logits, thresholds and weak labels in; soft and hard labels of every second out.

    hard = (logit > threshold) and weak             soft = sigmoid((logit - threshold) / temperature) * weak

UWAV Eqs. 11-12 as released (temperature 2; 1 is the paper's). A threshold of -inf has no soft label of its own:
it is taken as the class's lowest logit over the training split, minus 1 (released: over the mini-batch).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.generators import label_generator, method_logits
from avvp_pipe.stages.rows import check_same_clips, put_clips
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, option

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder


@dataclass(frozen=True, slots=True)
class Params:
    """Whose labels to make."""

    method: Literal["video-labels", "valor", "uwav"] = option("uwav", "Whose labels to make.")
    temperature: Annotated[float, Field(gt=0)] = option(2.0, "Of the soft labels: 2 as released, 1 as printed.")
    floor_split: str = option("train", "Split whose lowest logits stand in for thresholds of -inf.")


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Label every clip of every split; clips that failed get no label and keep their status."""
    from avvp_pipe.stages.blocks.labelling import Clips, stored_hard, stored_soft

    dataset, features = inputs["dataset"], inputs["features"]
    check_same_clips(features, dataset)
    weak, status = dataset.array("weak"), features.array("status")
    put_clips(out, dataset)
    out.put("status", status)
    out.describe(classes=list(dataset.attrs["classes"]), method=params.method, temperature=params.temperature)
    training = np.array(dataset.strings("splits"), dtype=str) == params.floor_split
    clips = Clips(weak, dataset.array("lengths"), status, training, segments=dataset.facts("audio").shape[1])
    logits = method_logits(params.method, features, inputs.get("generator"))
    for modality, values in progress.track(logits._asdict().items(), total=2, label="pseudolabel"):
        thresholds = _thresholds(params.method, modality, inputs.get("thresholds"), weak.shape[1])
        out.put(f"{modality}_logits", values)
        out.put(f"{modality}_thresholds", thresholds)
        out.put(f"{modality}_hard", stored_hard(values, thresholds, clips))
        out.put(f"{modality}_soft", stored_soft(values, thresholds, clips, temperature=params.temperature))


def _thresholds(method: str, modality: str, artifact: "Artifact | None", classes: int) -> NDArray[np.float32]:
    if not label_generator(method).needs_thresholds:
        return np.full(classes, -np.inf, np.float32)
    if artifact is None:
        raise ParameterError(
            f"{method} cuts logits by thresholds; make them with `avvp-pipe calibrate --method {method}` "
            "and give them as --thresholds thresholds/NAME"
        )
    if artifact.attrs["method"] != method:
        raise ParameterError(f"{artifact.reference} was calibrated for {artifact.attrs['method']}, not for {method}")
    return artifact.array(modality)


STAGE = Stage(
    name="pseudolabel",
    kind="labels",
    version=1,
    summary="Make soft and hard labels of every second.",
    reads={
        "dataset": Reads("dataset", "Weak labels."),
        "features": Reads("features", "What the method sees and hears."),
        "thresholds": Reads("thresholds", "Calibrated thresholds of the same method.", required=False),
        "generator": Reads("generator", "Temporal generator, for the methods that have one.", required=False),
    },
    params=Params,
    run=run,
    example="avvp-pipe pseudolabel --method uwav --dataset dataset/mine --features features/mine "
    "--thresholds thresholds/mine-uwav --generator generator/unav",
)
