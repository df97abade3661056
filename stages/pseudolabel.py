"""Stage `pseudolabel`: a method's logits, thresholds and weak labels in; soft and hard labels of every second out.

    hard = (logit > threshold) and weak             soft = sigmoid((logit - threshold) / temperature) * weak

UWAV Eqs. 11-12 as released (temperature 2; 1 is the paper's). A threshold of -inf has no soft label of its own:
it is taken as the class's lowest logit over the training split, minus 1 (released: over the mini-batch, which
`--floor-batch` repeats over consecutive clips, so that labels depend on their order). Methods whose logits are
calibrated already (`stack`) have soft = sigmoid(logit) * weak. `--soft literal` is EAR's Eq. 9 to the letter,
sigmoid(p - p_threshold) of p = sigmoid(logit), which keeps soft labels between 0.27 and 0.73.

Thresholds, prompts, what a method learnt, and whether the weak label is a filter are the thresholds artifact's.
Clips are labelled shard by shard: memory does not grow with their number, and a killed run goes on at a shard.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.generators import (
    Cuts,
    Labeller,
    Logits,
    Method,
    check_features_of,
    cuts_of,
    evidence_of,
    generators_for,
    label_generator,
)
from avvp_pipe.stages.generators.cuts import allowed, computing
from avvp_pipe.stages.rows import OK, put_clips
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, option

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.labelling import Clips, Soft
    from avvp_pipe.store import Artifact, Builder

KNOWN_BYTES = 2**28
"""Of logits that are kept from the pass over the training clips to the writing of the labels; LLP's are 24 MB."""


@dataclass(frozen=True, slots=True)
class Params:
    """Whose labels to make."""

    method: Method = option("uwav", "Whose labels to make.")
    temperature: Annotated[float, Field(gt=0)] = option(2.0, "Of the soft labels: 2 as released, 1 as printed.")
    soft: Literal["auto", "margin", "literal"] = option(
        "auto", "Soft labels: of the margin to the threshold, or EAR's Eq. 9 to the letter; auto: as the method has it."
    )
    floor_split: str = option("train", "Split whose lowest logits stand in for thresholds of -inf.")
    floor_batch: Annotated[int, Field(ge=0)] = option(
        0, "Stand-ins as released, from so many consecutive clips each; 0: from the split."
    )


@dataclass(frozen=True, slots=True)
class _Job:
    """What every shard is labelled with."""

    dataset: "Artifact"
    features: "Artifact"
    labeller: Labeller
    cuts: Cuts
    clips: "Clips"
    """All of them; `weak` as the dataset has it."""
    soft: "Soft"
    temperature: float
    floor_batch: int

    def logits(self, rows: slice) -> Logits:
        evidence = evidence_of(self.dataset, self.features, prompts=self.cuts.prompts, rows=rows)
        with computing(self.cuts.precision):
            return self.labeller(evidence)


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Label every clip of every split; clips that failed get no label and keep their status."""
    job = _job(inputs, params)
    cuts, clips = job.cuts, job.clips
    put_clips(out, job.dataset)
    for modality, thresholds in cuts.thresholds._asdict().items():
        out.put(f"{modality}_thresholds", thresholds)
    out.describe(classes=list(job.dataset.attrs["classes"]), method=params.method, prompts=cuts.prompts)
    out.describe(weak_filter=cuts.weak_filter, soft=job.soft, precision=cuts.precision)
    out.describe(temperature=params.temperature if job.soft == "margin" else None)
    shape = (len(clips.status), clips.segments, clips.weak.shape[1])
    for modality in cuts.thresholds._fields:
        out.declare(f"{modality}_logits", shape, "float32", fill=float("nan"), compressed=True)
        out.declare(f"{modality}_hard", shape, "bool")
        out.declare(f"{modality}_soft", shape, "float32", compressed=True)
    out.declare("status", shape[:1], "uint8")
    floors, known = _floors(job, params.floor_split)
    shards = list(out.pending())
    done = -(-shape[0] // STAGE.shard_rows) - len(shards)
    for shard in progress.track(shards, total=len(shards) + done, label="pseudolabel", done=done):
        logits = _known(known, shard) or job.logits(shard)
        out.write(shard, {"status": clips.status[shard], **_labels(logits, shard, job, floors)})


def _job(inputs: Inputs, params: Params) -> _Job:
    from avvp_pipe.stages.blocks.labelling import Clips

    dataset, features = inputs["dataset"], inputs["features"]
    check_features_of(features, dataset)
    method = label_generator(params.method)
    cuts = cuts_of(method, inputs.get("thresholds"), list(dataset.attrs["classes"]))
    training = np.array(dataset.strings("splits"), dtype=str) == params.floor_split
    segments = dataset.facts("audio").shape[1]
    return _Job(
        dataset,
        features,
        method.labeller(generators_for(method, inputs), cuts.fitted),
        cuts,
        Clips(dataset.array("weak"), dataset.array("lengths"), features.array("status"), training, segments),
        soft=method.soft if params.soft == "auto" else params.soft,
        temperature=params.temperature,
        floor_batch=params.floor_batch,
    )


def _floors(job: _Job, split: str) -> tuple[dict[str, NDArray[np.float32]], dict[int, Logits]]:
    """The lowest logits of both modalities over the training clips, (C,) each, where a threshold of -inf asks for them.

    Beside them the logits of the first blocks of clips, by their first row, so that most are not computed twice.
    """
    from avvp_pipe.stages.blocks.labelling import lowest, of_rows

    opened = any(np.isneginf(thresholds).any() for thresholds in job.cuts.thresholds)
    if job.soft != "margin" or job.floor_batch or not opened:
        return {}, {}
    counted = job.clips.training & (job.clips.status == OK)
    if not counted.any():
        raise ParameterError(
            f"thresholds of -inf get soft labels from the lowest logits of split {split!r}, but "
            f"{job.dataset.reference} has no clip there that could be processed; name another split (--floor-split), "
            "or take them from so many clips at a time (--floor-batch 64)"
        )
    floors = {modality: np.full(job.clips.weak.shape[1], np.inf, np.float32) for modality in Logits._fields}
    known: dict[int, Logits] = {}
    for start in range(0, len(counted), STAGE.shard_rows):
        rows = slice(start, min(start + STAGE.shard_rows, len(counted)))
        if not counted[rows].any():
            continue
        logits = job.logits(rows)
        for modality, values in logits._asdict().items():
            floors[modality] = np.minimum(floors[modality], lowest(values, of_rows(job.clips, rows)))
        if (len(known) + 1) * (logits.audio.nbytes + logits.visual.nbytes) <= KNOWN_BYTES:
            known[start] = logits
    return floors, known


def _known(known: Mapping[int, Logits], shard: slice) -> Logits | None:
    """The logits of a shard, where they were kept."""
    first = shard.start - shard.start % STAGE.shard_rows
    block = known.get(first)
    if block is None or shard.stop - first > len(block.audio):
        return None
    return Logits(*(values[shard.start - first : shard.stop - first] for values in block))


def _labels(
    logits: Logits, shard: slice, job: _Job, floors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Name -> array of one shard."""
    from avvp_pipe.stages.blocks.labelling import floors_of_batches, of_rows, soft_by, stored_hard

    here = of_rows(job.clips, shard)
    arrays: dict[str, NDArray[Any]] = {}
    for modality, values in logits._asdict().items():
        clips = replace(here, weak=allowed(here.weak, job.cuts.weak_filter, modality))
        cuts = getattr(job.cuts.thresholds, modality)
        arrays[f"{modality}_logits"] = values
        arrays[f"{modality}_hard"] = stored_hard(values, cuts, clips)
        batches = [(slice(None), floors.get(modality))]
        if job.floor_batch:
            batches = [*floors_of_batches(values, clips, batch=job.floor_batch)]
        arrays[f"{modality}_soft"] = np.concatenate(
            [
                soft_by(job.soft, values[rows], cuts, of_rows(clips, rows), temperature=job.temperature, floor=floor)
                for rows, floor in batches
            ]
        )
    return arrays


STAGE = Stage(
    name="pseudolabel",
    kind="labels",
    version=2,
    summary="Make soft and hard labels of every second.",
    reads={
        "dataset": Reads("dataset", "Weak labels."),
        "features": Reads("features", "What the method sees and hears."),
        "thresholds": Reads("thresholds", "Calibrated thresholds of the same method.", required=False),
        "generator": Reads("generator", "Temporal generator, for the methods that have one.", required=False),
        "second_generator": Reads("generator", "Another one, for `stack`.", required=False),
    },
    params=Params,
    run=run,
    example="avvp-pipe pseudolabel --method uwav --dataset dataset/mine --features features/mine "
    "--thresholds thresholds/mine-uwav --generator generator/unav",
)
# version 2: prompts and the weak filter are those of the thresholds; the soft labels of video-labels are 1, not 0.62
