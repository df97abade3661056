"""Stage `pretrain`: the temporal generator learns on videos labelled second by second what a second means.

    features (N, T, D), audio-visual labels (N, T, C) of a pre-training set -> weights of a TemporalGenerator

Two recipes: UWAV's (CVPR 2025, section 3.2 and released code) and EAR's (`generators/ear.py`), which has the same
network and optimiser and another objective. Defaults are those of UWAV's release. UWAV as it is printed:

| switch | released (default) | printed |
|---|---|---|
| `projections` | MLPs before and after the transformer | `--no-projections` |
| `scales` | `log`: logits times the logarithm of the teacher's scale | `none` |
| `present_weight` | 5 | 1 |
| `clip_norm` | 2 | 1 |
| `temperature` of `pseudolabel` | 2 | 1 |

The paper says nothing of `positions` (none in the release) and of `identical_layers` (all layers start from the same
values in the release).

The best epoch is the one of the best validation segment-level audio-visual F (probability of the product >= 0.5).
Pre-training labels say only what is heard and seen at once; where a dataset labels audio and vision separately,
their product is used.

Departures, for speed: dropout draws sixteen bits a value (`blocks/dropout.py`); AdamW is torch's fused one; padding is
left out instead of masked (`blocks/packing.py`), which changes rounding only.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from avvp_pipe.stages.blocks.precision import settled_precision
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, epochs, option, outside_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from avvp_pipe.stages.blocks.training import Fitted
    from avvp_pipe.stages.generators.pretraining import Objective
    from avvp_pipe.stages.generators.pretraining_clips import Clips
    from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator
    from avvp_pipe.store import Builder

SELECT = "val_AV"
EAR_PANEL = "EAR (--method ear)"
EAR_DEFAULTS = {
    "audio_similarity": 0.98,
    "visual_similarity": 0.95,
    "similar": "above",
    "migrate_across": "video",
    "audio_weight": 0.05,
    "visual_weight": 0.15,
    "unimodal_present_weight": 1.0,
    "combine": "product",
}
"""Where they come from, and how sure that is, stands in `generators/ear.py`."""
Cosine = Annotated[float, Field(ge=-1, le=1)] | None
Weight = Annotated[float, Field(ge=0)] | None


@dataclass(frozen=True, slots=True)
class Params:
    """Method, sizes, switches and recipe. Defaults: UWAV's released script."""

    method: Literal["uwav", "ear"] = option("uwav", "Whose objective.")
    width: Annotated[int, Field(ge=8)] = option(1024, "Width of the transformer.")
    heads: Annotated[int, Field(ge=1)] = option(16, "Attention heads.")
    ffn: Annotated[int, Field(ge=8)] = option(2048, "Width of the feed-forward layers.")
    layers: Annotated[int, Field(ge=1)] = option(5, "Transformer layers.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = option(0.3, "Dropout in the transformer.")
    projections: bool = option(True, "MLPs before and after the transformer (released; the paper has none).")
    scales: Literal["log", "exp", "none"] = option(
        "log", "Factor of the logits: the log scale itself as released, its exponential, or none (paper)."
    )
    positions: Literal["none", "sinusoidal"] = option("none", "Positional encoding; none as released.")
    attend: Literal["video", "segment"] = option("video", "Let a second see its video, or (ablation) only itself.")
    identical_layers: bool = option(True, "Start all layers from the same values (released).")
    present_weight: Annotated[float, Field(gt=0)] = option(
        5.0, "Audio-visual loss weight of classes in the clip; 1 is the paper's."
    )
    epochs: Annotated[int, Field(ge=1)] = option(80, "Passes over the training clips.")
    warmup: Annotated[int, Field(ge=0)] = option(10, "Epochs until the peak learning rate.")
    learning_rate: Annotated[float, Field(gt=0)] = option(1e-4, "Peak learning rate.")
    learning_rate_min: Annotated[float, Field(ge=0)] = option(1e-5, "Learning rate at the end.")
    weight_decay: Annotated[float, Field(ge=0)] = option(1e-3, "AdamW weight decay.")
    clip_norm: Annotated[float, Field(gt=0)] = option(2.0, "Gradient norm limit; 1 is the paper's.")
    train_batch: Annotated[int, Field(ge=1)] = option(64, "Clips in one step of training.")
    batching: Literal["random", "length"] = option(
        "random", "Clips of a batch: drawn from all (released), or of similar length, which is somewhat faster."
    )
    precision: Literal["fp32", "bf16", "auto"] = option(
        "fp32", "What matrix products are computed in; auto: bf16 where this machine has instructions for it."
    )
    seed: Annotated[int, Field(ge=0)] = option(1000, "Of initial weights, order of clips and dropout.")
    audio_similarity: Cosine = option(None, "Cosine above which seconds sound alike (0.98).", panel=EAR_PANEL)
    visual_similarity: Cosine = option(None, "Cosine above which seconds look alike (0.95).", panel=EAR_PANEL)
    similar: Literal["above", "at-least"] | None = option(
        None, "Above that cosine (default), or at it too.", panel=EAR_PANEL
    )
    migrate_across: Literal["video", "batch"] | None = option(
        None, "Labels migrate within a video (default), or within a batch.", panel=EAR_PANEL
    )
    audio_weight: Weight = option(None, "Of the loss on migrated audio labels (0.05).", panel=EAR_PANEL)
    visual_weight: Weight = option(None, "Of the loss on migrated visual labels (0.15).", panel=EAR_PANEL)
    unimodal_present_weight: Annotated[float, Field(gt=0)] | None = option(
        None, "Weight, in those losses, of classes in the clip (1).", panel=EAR_PANEL
    )
    combine: Literal["product", "min", "mean", "geometric"] | None = option(
        None, "How a trained and a frozen probability make one (product).", panel=EAR_PANEL
    )
    apart_from_splits: str | None = option(
        None, "Splits of --apart-from whose videos are left out (val,test).", panel="Leakage"
    )
    device: str = outside_key("auto", "auto, cpu or cuda:N.")


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in precision, EAR's switches and splits to stay apart from. Raises ParameterError for those of no use."""
    found: dict[str, Any] = {"precision": settled_precision(params.precision, params.device)}
    of_no_use = "method uwav has no use for it; leave it out, or pre-train with --method ear"
    found |= _settled(params, EAR_DEFAULTS, used=params.method == "ear", otherwise=of_no_use)
    of_no_use = "there is nothing to stay apart from; give a dataset as --apart-from"
    splits = {"apart_from_splits": "val,test"}
    return dataclasses.replace(
        params, **found, **_settled(params, splits, used="apart_from" in inputs, otherwise=of_no_use)
    )


def _settled(params: Params, defaults: dict[str, Any], *, used: bool, otherwise: str) -> dict[str, Any]:
    given = {name: getattr(params, name) for name in defaults}
    if not used:
        for name, value in given.items():
            if value is not None:
                raise ParameterError(f"--{name.replace('_', '-')} {value} was given, but {otherwise}")
        return {}
    return {name: value if given[name] is None else given[name] for name, value in defaults.items()}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Train, keep the best epoch, store weights and history."""
    from avvp_pipe.stages.blocks.device import torch_device
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.generators.pretraining_clips import labelled_clips

    found = labelled_clips(inputs, splits=_splits(params), where=torch_device(params.device))
    train, val = found.clips["train"], found.clips["val"]
    out.describe(
        classes=list(inputs["dataset"].attrs["classes"]),
        method=params.method,
        clips={split: len(clips.lengths) for split, clips in found.clips.items()},
        left_out=found.left_out,
    )
    if "apart_from" in inputs:
        told = ", ".join(f"{count} of {split}" for split, count in found.left_out.items())
        progress.note(f"left out, because {inputs['apart_from'].reference} has clips of the same videos: {told}")
    network = network_of(params, train, found.log_scales)
    with epochs(progress, "pretrain", params.epochs, saved=out.saved) as tick:
        fitted = trained(network, params, train, val, checkpoint=out.checkpoint, progress=tick)
    out.describe(best_epoch=fitted.best_epoch, selected_by=SELECT)
    put_network(out, network, fitted.best, fitted.history)


def trained(
    network: "Network",
    params: Params,
    train: "Clips",
    val: "Clips",
    *,
    checkpoint: "Path | None" = None,
    progress: "Callable[[Mapping[str, float]], None] | None" = None,
) -> "Fitted":
    """Pre-train a network on some clips and select by others. params: settled; the rest as in `training.fit`."""
    from avvp_pipe.stages.blocks.batching import batches_of
    from avvp_pipe.stages.blocks.training import Optimiser, Schedule, fit, seeded
    from avvp_pipe.stages.generators.pretraining import audio_visual_f
    from avvp_pipe.stages.generators.uwav import TemporalGenerator

    precision = _precision(params)
    with seeded(params.seed, 0):
        model = TemporalGenerator(network).to(train.audio.device)
    return fit(
        model,
        _objective(model, train, params),
        clips=len(train.lengths),
        batch_size=params.train_batch,
        batches=batches_of(params.batching, train.lengths, params.train_batch),
        schedule=Schedule(params.epochs, params.warmup, params.learning_rate, params.learning_rate_min),
        optimiser=Optimiser(params.weight_decay, betas=(0.5, 0.999), clip_norm=params.clip_norm, fused=True),
        seed=params.seed,
        validate=lambda: {SELECT: audio_visual_f(model, val, precision=precision)},
        select=SELECT,
        checkpoint=checkpoint,
        progress=progress,
    )


def _splits(params: Params) -> list[str]:
    return [name.strip() for name in (params.apart_from_splits or "").split(",")]


def _precision(params: Params) -> Literal["fp32", "bf16"]:
    assert params.precision != "auto", "settled before a run"
    return params.precision


def network_of(params: Params, clips: "Clips", log_scales: tuple[float, float]) -> "Network":
    """The generator's sizes for features of these widths; logit scales (audio, visual) are the teachers' own."""
    from avvp_pipe.stages.generators.uwav import Network

    return Network(
        width=params.width,
        heads=params.heads,
        ffn=params.ffn,
        layers=params.layers,
        dropout=params.dropout,
        audio_width=clips.audio.shape[2],
        visual_width=clips.visual.shape[2],
        audio_scale=log_scales[0],
        visual_scale=log_scales[1],
        scales=params.scales,
        projections=params.projections,
        positions=params.positions,
        attend=params.attend,
        identical_layers=params.identical_layers,
    )


def _objective(model: "TemporalGenerator", clips: "Clips", params: Params) -> "Objective":
    from avvp_pipe.stages.generators.pretraining import Asymmetric, ear_objective, uwav_objective

    precision = _precision(params)
    if params.method == "uwav":
        return uwav_objective(model, clips, present_weight=params.present_weight, precision=precision)
    switches = {name: getattr(params, name) for name in EAR_DEFAULTS}
    return ear_objective(
        model, clips, Asymmetric(present_weight=params.present_weight, **switches), precision=precision
    )


STAGE = Stage(
    name="pretrain",
    kind="generator",
    version=2,
    summary="Pre-train the temporal generator on videos labelled second by second (UWAV as released, or EAR).",
    reads={
        "dataset": Reads("dataset", "Dense audio-visual labels, splits train and val."),
        "features": Reads("features", "Of the same clips."),
        "apart_from": Reads("dataset", "Leave out clips of the videos that this one has, too.", required=False),
    },
    params=Params,
    run=run,
    settle=settle,
    example="""\
UWAV's generator, as released
avvp-pipe pretrain --dataset unav --features unav --name unav
EAR's, in bfloat16, without the videos that LLP is evaluated on
avvp-pipe pretrain --method ear --precision bf16 --dataset unav --features unav --apart-from llp --name unav-ear""",
)
# version 2: EAR; padding left out, dropout of sixteen bits and fused AdamW change rounding and draws
