"""Stage `simulate`: what teachers might make of clips, from annotations alone: no videos, no weights, no measurement.

    dataset -> audio (N, T, 512), visual (N, T, 768), text_audio/SET (C, 512), text_visual/SET (C, 768)

So that methods can be run and compared where videos cannot be had. What is compared is how they cope with evidence
that drops out, begins early, belongs to something else or drifts; how good CLIP and CLAP are cannot be asked here.
The numbers of `simulation/settings.py` were tuned until VALOR's labels, made of this, score on LLP's validation split
about as published. A pre-training set must be simulated in the same `world` as the set that is labelled.

Clips with weak labels only get hidden events, lent by labelled clips; clips labelled jointly get hidden stretches of
one modality (`simulation/hidden.py`). Neither is stored: but for the features, all stays as the dataset has it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.rows import JOINT, NONE, OK, SEPARATE, put_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.simulation import ClipTruth, Donors, Teacher
    from avvp_pipe.store import Artifact, Builder

ORIGIN = "simulation"
"""Attribute `origin` of features that no teacher made."""


@dataclass(frozen=True, slots=True)
class Params:
    """Which of the many simulations."""

    seed: Annotated[int, Field(ge=0)] = option(0, "Of what happens in the clips.")
    world: Annotated[int, Field(ge=0)] = option(
        0, "Of the teachers: how texts and classes look to them. The same for sets that go together."
    )
    lenders: str = option("val", "Split whose labelled clips lend hidden events to clips with weak labels only.")
    stored_as: Literal["float32", "float16"] = option("float32", "Type of the stored features; float16 takes half.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over the simulation's numbers, so that features are made anew when these are tuned anew."""
    from avvp_pipe.stages.digests import combined_digest
    from avvp_pipe.stages.simulation import SENSES

    return {"simulation": combined_digest((sense, repr(numbers)) for sense, numbers in SENSES.items())}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Simulate shard by shard. Raises StoreError where no labelled clip could lend its events."""
    from avvp_pipe.stages.simulation import SENSES, teacher_of, text_features

    dataset = inputs["dataset"]
    classes = tuple(dataset.attrs["classes"])
    lenders = _lenders(dataset, params)
    teachers = {sense: teacher_of(classes, sense, world=params.world) for sense in SENSES}
    put_clips(out, dataset)
    for name, prompts in dataset.attrs["prompts"].items():
        for sense, teacher in teachers.items():
            out.put(f"text_{sense}/{name}", text_features(teacher, prompts[sense]))
    _describe(out, classes)
    progress.note("this is a simulation: no teacher looked or listened, and scores of what is made of it say so")
    clips, segments = len(dataset.array("lengths")), dataset.facts("audio").shape[1]
    for sense, settings in SENSES.items():
        out.declare(sense, (clips, segments, settings.width), params.stored_as, fill=float("nan"))
    out.declare("status", (clips,), "uint8")
    pending = list(out.pending())
    done = -(-clips // STAGE.shard_rows) - len(pending)
    for rows in progress.track(pending, total=len(pending) + done, label="simulate, shards", done=done):
        out.write(rows, _shard(list(_truths(dataset, rows, lenders, params)), teachers, segments, params))


def _describe(out: "Builder", classes: tuple[str, ...]) -> None:
    from avvp_pipe.stages.simulation import SENSES

    out.describe(
        classes=list(classes),
        origin=ORIGIN,
        simulation={sense: asdict(settings) for sense, settings in SENSES.items()},
        **{f"{sense}_log_scale": settings.log_scale for sense, settings in SENSES.items()},
    )


def _shard(
    truths: "list[ClipTruth]", teachers: "dict[Any, Teacher]", segments: int, params: Params
) -> dict[str, NDArray[Any]]:
    from avvp_pipe.stages.simulation import simulated_clip

    found: dict[str, NDArray[Any]] = {"status": np.full(len(truths), OK, np.uint8)}
    for sense, teacher in teachers.items():
        values = np.full((len(truths), segments, teacher.settings.width), np.nan, params.stored_as)
        for row, truth in enumerate(truths):
            values[row, : truth.seconds] = simulated_clip(truth, teacher, seed=params.seed)
        found[sense] = values
    return found


def _truths(dataset: "Artifact", rows: slice, lenders: "Donors", params: Params) -> "Iterator[ClipTruth]":
    """What really happens in these clips, one after the other."""
    from avvp_pipe.stages.simulation import ClipTruth, borrowed, extended

    names, classes = dataset.strings("video_ids")[rows], tuple(dataset.attrs["classes"])
    heard, seen, both, weak, lengths, dense = (
        dataset.rows(name, rows) for name in ("audio", "visual", "audio_visual", "weak", "lengths", "dense")
    )
    for row, (name, length, kind) in enumerate(zip(names, lengths.tolist(), dense.tolist(), strict=True)):
        if kind == SEPARATE:
            yield ClipTruth(name, heard[row, :length], seen[row, :length])
        elif kind == JOINT:
            yield extended(name, both[row, :length], classes, seed=params.seed)
        else:
            yield borrowed(name, length, weak[row], classes, lenders, seed=params.seed)


def _lenders(dataset: "Artifact", params: Params) -> "Donors":
    from avvp_pipe.stages.simulation import donors

    dense = dataset.array("dense")
    lends = (np.array(dataset.strings("splits"), dtype=str) == params.lenders) & (dense == SEPARATE)
    if not lends.any() and (dense == NONE).any():
        raise StoreError(
            f"{dataset.reference} has clips whose seconds are not labelled, and no clip of split {params.lenders!r} "
            "whose seconds are, to lend them events; name another split with --lenders, or label some clips"
        )
    rows = np.flatnonzero(lends)
    arrays = (dataset.array(name)[rows] for name in ("lengths", "audio", "visual", "weak"))
    return donors([dataset.strings("video_ids")[row] for row in rows.tolist()], *arrays)


STAGE = Stage(
    name="simulate",
    kind="features",
    version=1,
    summary="Simulate the teachers on a dataset's annotations, to compare methods without videos. "
    "What comes of it is marked as simulation.",
    reads={"dataset": Reads("dataset", "Annotations, classes and prompts.")},
    params=Params,
    run=run,
    sources=sources,
    example="avvp-pipe simulate --dataset dataset/llp --seed 0 --name llp-sim",
)
