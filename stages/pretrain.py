"""Stage `pretrain`: the temporal generator learns on videos labelled second by second what a second means.

    features (N, T, D), audio-visual labels (N, T, C) of a pre-training set -> weights of a TemporalGenerator

UWAV (CVPR 2025) section 3.2 and released code, sizes and switches as parameters; defaults are the release's. The
best epoch is the one of the best validation segment-level audio-visual F (probability of the product >= 0.5).
Pre-training labels say only what is heard and seen at once; where a dataset labels audio and vision separately,
their product is used.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from avvp_pipe.stages.generators import SegmentFeatures, segment_features
from avvp_pipe.stages.rows import check_same_clips, rows_of
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, epochs, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from torch import Tensor, device

    from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator
    from avvp_pipe.store import Artifact, Builder

SELECT = "val_AV"
DECISION = 0.5


@dataclass(frozen=True, slots=True)
class Params:
    """Sizes, switches and recipe. Defaults: UWAV's released script."""

    width: Annotated[int, Field(ge=8)] = option(1024, "Width of the transformer.")
    heads: Annotated[int, Field(ge=1)] = option(16, "Attention heads.")
    ffn: Annotated[int, Field(ge=8)] = option(2048, "Width of the feed-forward layers.")
    layers: Annotated[int, Field(ge=1)] = option(5, "Transformer layers.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = option(0.3, "Dropout in the transformer.")
    projections: bool = option(True, "MLPs before and after the transformer (released; the paper has none).")
    scales: Literal["log", "exp", "none"] = option("log", "Factor of the logits: the log scale itself as released.")
    positions: Literal["none", "sinusoidal"] = option("none", "Positional encoding; none as released.")
    attend: Literal["video", "segment"] = option("video", "Let a second see its video, or (ablation) only itself.")
    present_weight: Annotated[float, Field(gt=0)] = option(5.0, "Loss weight of classes in the clip; 1 is the paper's.")
    epochs: Annotated[int, Field(ge=1)] = option(80, "Passes over the training clips.")
    warmup: Annotated[int, Field(ge=0)] = option(10, "Epochs until the peak learning rate.")
    learning_rate: Annotated[float, Field(gt=0)] = option(1e-4, "Peak learning rate.")
    learning_rate_min: Annotated[float, Field(ge=0)] = option(1e-5, "Learning rate at the end.")
    weight_decay: Annotated[float, Field(ge=0)] = option(1e-3, "AdamW weight decay.")
    clip_norm: Annotated[float, Field(gt=0)] = option(2.0, "Gradient norm limit; 1 is the paper's.")
    train_batch: Annotated[int, Field(ge=1)] = option(64, "Clips in one step of training.")
    seed: Annotated[int, Field(ge=0)] = option(1000, "Of initial weights, order of clips and dropout.")
    device: str = outside_key("auto", "auto, cpu or cuda:N.")


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Train, keep the best epoch, store weights and history."""
    from avvp_pipe.stages.blocks.device import torch_device
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.blocks.training import Optimiser, Schedule, fit, seeded
    from avvp_pipe.stages.generators.uwav import TemporalGenerator

    dataset, features = inputs["dataset"], inputs["features"]
    check_same_clips(features, dataset)
    arrays = segment_features(features, prompts="uwav")
    network = network_of(params, arrays)
    where = torch_device(params.device)
    with seeded(params.seed, 0):
        model = TemporalGenerator(network).to(where)
    clips = {split: _clips(dataset, features, arrays, split, where) for split in ("train", "val")}
    with epochs(progress, "pretrain", params.epochs, saved=out.saved) as tick:
        fitted = fit(
            model,
            lambda rows: {"audio_visual": _loss(model, clips["train"], rows, params.present_weight)},
            clips=len(clips["train"].lengths),
            batch_size=params.train_batch,
            schedule=Schedule(params.epochs, params.warmup, params.learning_rate, params.learning_rate_min),
            optimiser=Optimiser(weight_decay=params.weight_decay, betas=(0.5, 0.999), clip_norm=params.clip_norm),
            seed=params.seed,
            validate=lambda: {SELECT: audio_visual_f(model, clips["val"])},
            select=SELECT,
            checkpoint=out.checkpoint,
            progress=tick,
        )
    out.describe(classes=list(dataset.attrs["classes"]), best_epoch=fitted.best_epoch, selected_by=SELECT)
    put_network(out, network, fitted.best, fitted.history)


def network_of(params: Params, features: SegmentFeatures) -> "Network":
    """The generator's sizes for these features; logit scales are the teachers' own."""
    from avvp_pipe.stages.generators.uwav import Network

    return Network(
        width=params.width,
        heads=params.heads,
        ffn=params.ffn,
        layers=params.layers,
        dropout=params.dropout,
        audio_width=features.audio.shape[2],
        visual_width=features.visual.shape[2],
        audio_scale=features.audio_log_scale,
        visual_scale=features.visual_log_scale,
        scales=params.scales,
        projections=params.projections,
        positions=params.positions,
        attend=params.attend,
    )


@dataclass(frozen=True, slots=True)
class Clips:
    """The clips of one split, as tensors on the device."""

    audio: "Tensor"
    """(N, T, Da)."""
    visual: "Tensor"
    """(N, T, Dv)."""
    labels: "Tensor"
    """(N, T, C) bool, heard and seen at once."""
    lengths: "Tensor"
    """(N,) int64."""
    text_audio: "Tensor"
    """(C, Da)."""
    text_visual: "Tensor"
    """(C, Dv)."""


def _clips(dataset: "Artifact", features: "Artifact", arrays: SegmentFeatures, split: str, where: "device") -> Clips:
    """Raises StoreError where the split has no clip whose seconds are labelled."""
    from avvp_pipe.stages.blocks.device import tensor_on

    rows = rows_of(dataset, split, status=features.array("status"))
    rows = rows[dataset.array("dense")[rows] > 0]
    if not len(rows):
        raise StoreError(
            f"no clip of split {split!r} in {dataset.reference} has its seconds labelled; pretrain needs them"
        )
    found = (
        arrays.audio[rows],
        arrays.visual[rows],
        dataset.array("audio_visual")[rows],
        arrays.lengths[rows].astype(np.int64),
        arrays.text_audio,
        arrays.text_visual,
    )
    return Clips(*(tensor_on(where, each) for each in found))


def _loss(model: "TemporalGenerator", clips: Clips, rows: "Tensor", present_weight: float) -> "Tensor":
    from avvp_pipe.stages.generators.uwav import audio_visual_loss

    rows = rows.to(clips.lengths.device)
    lengths = clips.lengths[rows]
    heard, seen = model(clips.audio[rows], clips.visual[rows], clips.text_audio, clips.text_visual, lengths)
    return audio_visual_loss(heard, seen, clips.labels[rows], lengths, present_weight=present_weight)


def audio_visual_f(model: "TemporalGenerator", clips: Clips) -> float:
    """Segment-level audio-visual F, in percent, of "the product of both probabilities is at least 0.5".

    UWAV's released selection (methods of UnAV-100 in the AVVP protocol); `clips` are parsed in one batch of
    up to 64 at a time.
    """
    import torch

    from avvp_pipe.stages.generators.uwav import audio_visual_probability
    from avvp_pipe.stages.metrics import avvp_scores

    calls = []
    for rows in torch.split(torch.arange(len(clips.lengths)), 64):
        logits = model(clips.audio[rows], clips.visual[rows], clips.text_audio, clips.text_visual, clips.lengths[rows])
        calls.append(audio_visual_probability(*logits) >= DECISION)
    called, truth = torch.cat(calls).cpu().numpy(), clips.labels.cpu().numpy()
    # Heard and seen alike, so that the product is what it is.
    return avvp_scores(called, called, truth, truth, lengths=clips.lengths.cpu().numpy())["segment"]["AV"]


STAGE = Stage(
    name="pretrain",
    kind="generator",
    version=1,
    summary="Pre-train the temporal generator on videos labelled second by second (UWAV, as released).",
    reads={
        "dataset": Reads("dataset", "Dense audio-visual labels, splits train and val."),
        "features": Reads("features", "Of the same clips."),
    },
    params=Params,
    run=run,
    example="avvp-pipe pretrain --dataset dataset/unav --features features/unav --name unav",
)
