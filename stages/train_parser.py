"""Stage `train-parser`: a parser learns from stored labels which events are heard and seen in every second.

    labels (soft or hard), weak labels, features -> weights, history, and predictions for every clip

UWAV's objective (CVPR 2025, section 3.3 and released code), every term a switch:

    L = BCE(p, weak) + L_segment(audio) + L_segment(visual) + L_mixup(audio) + L_mixup(visual)

The best epoch is the one of the best validation segment-level Type@AV.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.rows import OK, SEPARATE, check_same_clips, put_clips, rows_of
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, epochs, option, outside_key

if TYPE_CHECKING:
    from torch import Tensor, device

    from avvp_pipe.stages.blocks.losses import ClassBalance
    from avvp_pipe.stages.parsers.han import Han, Network
    from avvp_pipe.store import Artifact, Builder

SELECT = "val_Type"
CLIPS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Params:
    """Parser, objective and recipe. Defaults: UWAV's released script, on CLIP and CLAP features."""

    parser: Literal["han"] = option("han", "Which parser.")
    targets: Literal["weak", "hard", "soft"] = option("soft", "What supervises seconds; weak: nothing does.")
    reweight: Literal["none", "code", "paper"] = option("code", "Class-balanced re-weighting of the segment loss.")
    balance: Annotated[float, Field(gt=0)] = option(0.5, "Strength W of the re-weighting.")
    mixup: bool = option(True, "Mixup of segment features after attention.")
    mixup_alpha: Annotated[float, Field(gt=0)] = option(1.7, "Of the Beta distribution that mixup draws from.")
    width: Annotated[int, Field(ge=8)] = option(512, "Width of the parser.")
    heads: Annotated[int, Field(ge=1)] = option(16, "Attention heads.")
    ffn: Annotated[int, Field(ge=8)] = option(2048, "Width of the feed-forward layers.")
    layers: Annotated[int, Field(ge=1)] = option(5, "HAN layers.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = option(0.1, "Dropout.")
    norm: Literal["post", "pre"] = option("post", "Where layers normalise.")
    order: Literal["sequential", "symmetric"] = option(
        "sequential", "Vision attends to the updated audio (released), or both to the old streams."
    )
    epochs: Annotated[int, Field(ge=1)] = option(80, "Passes over the training clips.")
    warmup: Annotated[int, Field(ge=0)] = option(10, "Epochs until the peak learning rate.")
    learning_rate: Annotated[float, Field(gt=0)] = option(1e-4, "Peak learning rate.")
    learning_rate_min: Annotated[float, Field(ge=0)] = option(5e-6, "Learning rate at the end.")
    weight_decay: Annotated[float, Field(ge=0)] = option(1e-4, "AdamW weight decay.")
    clip_norm: Annotated[float, Field(gt=0)] = option(1.0, "Gradient norm limit.")
    train_batch: Annotated[int, Field(ge=1)] = option(64, "Clips in one step of training.")
    seed: Annotated[int, Field(ge=0)] = option(20000, "Of initial weights, order of clips, dropout and mixup.")
    device: str = outside_key("auto", "auto, cpu or cuda:N.")


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips as tensors on the device."""

    audio: "Tensor"
    """(N, T, Da)."""
    visual: "Tensor"
    """(N, T, Dv)."""
    weak: "Tensor"
    """(N, C) bool."""
    lengths: "Tensor"
    """(N,) int64."""
    targets: "dict[str, Tensor]"
    """audio, visual -> (N, T, C) in [0, 1]; empty where nothing supervises seconds."""


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Train, keep the best epoch, store weights, history and predictions."""
    from avvp_pipe.stages.blocks.device import torch_device
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.blocks.training import Optimiser, Schedule, fit, seeded
    from avvp_pipe.stages.parsers.han import Han

    dataset, features = inputs["dataset"], inputs["features"]
    labels = _labels(inputs, params)
    check_same_clips(features, dataset, *([labels] if labels else []))
    where, status = torch_device(params.device), features.array("status")
    clips = _clips(dataset, features, labels, params, where)
    train = rows_of(dataset, "train", status=status)
    validate = _validation(dataset, clips, status, progress)
    network = network_of(params, clips)
    with seeded(params.seed, 0):
        model = Han(network).to(where)
    balance = _balance(labels, dataset, train, params)
    with epochs(progress, "train-parser", params.epochs, saved=out.saved) as tick:
        fitted = fit(
            model,
            lambda rows: _objective(model, clips, train[rows.numpy()], balance, params),
            clips=len(train),
            batch_size=params.train_batch,
            schedule=Schedule(params.epochs, params.warmup, params.learning_rate, params.learning_rate_min),
            optimiser=Optimiser(weight_decay=params.weight_decay, clip_norm=params.clip_norm),
            seed=params.seed,
            validate=partial(validate, model) if validate else None,
            select=SELECT if validate else None,
            checkpoint=out.checkpoint,
            progress=tick,
        )
    put_clips(out, dataset)
    out.put("status", status)
    out.describe(classes=list(dataset.attrs["classes"]), method=method_of(params, labels), best_epoch=fitted.best_epoch)
    put_network(out, network, fitted.best, fitted.history)
    for name, array in _predictions(model.eval(), clips, np.arange(len(status))).items():
        out.put(name, array)


def method_of(params: Params, labels: "Artifact | None") -> str:
    """What the parser was trained on, in words for tables.

    >>> method_of(Params(targets="weak"), None)
    'han, weak labels'
    """
    if labels is None:
        return f"{params.parser}, weak labels"
    extras = [name for name, on in (("re-weighting", params.reweight != "none"), ("mixup", params.mixup)) if on]
    return ", ".join((params.parser, f"{params.targets} {labels.attrs['method']}", *extras))


def _labels(inputs: Inputs, params: Params) -> "Artifact | None":
    if params.targets == "weak":
        return None
    if "labels" not in inputs:
        raise ParameterError(
            f"targets = {params.targets!r} needs labels of every second; make them with `avvp-pipe pseudolabel` "
            "and give them as --labels labels/NAME, or train with --targets weak"
        )
    return inputs["labels"]


def network_of(params: Params, clips: Clips) -> "Network":
    """The parser's sizes for these features."""
    from avvp_pipe.stages.parsers.han import Network

    return Network(
        classes=clips.weak.shape[1],
        width=params.width,
        heads=params.heads,
        ffn=params.ffn,
        layers=params.layers,
        dropout=params.dropout,
        inputs="clip_clap",
        audio_width=clips.audio.shape[2],
        visual_width=clips.visual.shape[2],
        norm=params.norm,
        order=params.order,
    )


def _clips(
    dataset: "Artifact", features: "Artifact", labels: "Artifact | None", params: Params, where: "device"
) -> Clips:
    from avvp_pipe.stages.blocks.device import tensor_on

    on_device = partial(tensor_on, where)
    found = {} if labels is None else {m: labels.array(f"{m}_{params.targets}") for m in ("audio", "visual")}
    return Clips(
        audio=on_device(features.array("audio").astype(np.float32)),
        visual=on_device(features.array("visual").astype(np.float32)),
        weak=on_device(dataset.array("weak")),
        lengths=on_device(dataset.array("lengths").astype(np.int64)),
        targets={modality: on_device(array.astype(np.float32)) for modality, array in found.items()},
    )


def _balance(
    labels: "Artifact | None", dataset: "Artifact", train: NDArray[np.intp], params: Params
) -> "dict[str, ClassBalance]":
    """Class-balanced weights from the hard labels of the training split, one pair a modality."""
    import torch

    from avvp_pipe.stages.blocks.losses import class_balance

    if labels is None or params.reweight == "none":
        return {}
    segments = dataset.facts("audio").shape[1]
    valid = torch.from_numpy(np.arange(segments) < dataset.array("lengths")[train][:, None])
    return {
        modality: class_balance(
            torch.from_numpy(labels.array(f"{modality}_hard")[train]),
            valid=valid,
            strength=params.balance,
            form=params.reweight,
        )
        for modality in ("audio", "visual")
    }


def _objective(
    model: "Han", clips: Clips, rows: NDArray[np.intp], balance: "dict[str, ClassBalance]", params: Params
) -> "dict[str, Tensor]":
    import torch

    from avvp_pipe.stages.blocks.attention import valid_mask
    from avvp_pipe.stages.blocks.losses import draw_mixup, mixup_loss, segment_loss, video_loss

    chosen = torch.from_numpy(rows).to(clips.lengths.device)
    weak, lengths = clips.weak[chosen], clips.lengths[chosen]
    outputs = model(clips.audio[chosen], clips.visual[chosen], lengths=lengths)
    terms = {"video": video_loss(outputs.video_probs, weak)}
    valid = valid_mask(lengths, clips.audio.shape[1])
    for modality, every in clips.targets.items():
        targets = every[chosen]
        weights = balance[modality].weights(weak) if balance else None
        logits = getattr(outputs, f"{modality}_logits")
        terms[f"segment_{modality}"] = segment_loss(logits, targets, weights=weights, valid=valid)
        if params.mixup:
            segments = getattr(outputs, f"{modality}_features")[valid]
            draw = draw_mixup(len(segments), alpha=params.mixup_alpha)
            terms[f"mixup_{modality}"] = mixup_loss(segments, targets[valid], draw, model.classifier)
    return terms


def _predictions(model: "Han", clips: Clips, rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    """Probabilities and gated decisions for some clips; those that failed get zeros."""
    import torch

    from avvp_pipe.stages.parsers.han import predict

    parts: dict[str, list[NDArray[Any]]] = {}
    beyond = np.arange(clips.audio.shape[1]) >= clips.lengths.cpu().numpy()[rows][:, None]
    missing = np.isnan(clips.audio[:, :, 0].cpu().numpy()[rows]) | beyond
    with torch.inference_mode():
        for group in torch.split(torch.from_numpy(rows).to(clips.lengths.device), CLIPS_AT_ONCE):
            audio, visual = (each[group].nan_to_num(0.0) for each in (clips.audio, clips.visual))
            outputs = model(audio, visual, lengths=clips.lengths[group])
            heard, seen = predict(outputs)
            found = {
                "video_probs": outputs.video_probs,
                "audio_probs": outputs.audio_logits.sigmoid(),
                "visual_probs": outputs.visual_logits.sigmoid(),
                "audio_hard": heard,
                "visual_hard": seen,
            }
            for name, tensor in found.items():
                parts.setdefault(name, []).append(tensor.cpu().numpy())
    whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
    return {name: _blank(array, missing) for name, array in whole.items()}


def _blank(array: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Zero where there was nothing to predict from: seconds, or for (N, C) arrays whole clips."""
    gone = missing.all(axis=1) if array.ndim == 2 else missing
    return np.where(gone[..., None], array.dtype.type(0), array)


def _validation(
    dataset: "Artifact", clips: Clips, status: NDArray[Any], progress: Progress
) -> "Callable[[Han], dict[str, float]] | None":
    """Scores of a parser on the validation clips whose seconds are labelled; None where there are none."""
    from avvp_pipe.stages.metrics import avvp_scores

    labelled = (np.array(dataset.strings("splits"), dtype=str) == "val") & (dataset.array("dense") == SEPARATE)
    rows = np.flatnonzero(labelled & (status == OK))
    if not len(rows):
        progress.note("no validation clip has its seconds labelled; the last epoch is kept instead of the best")
        return None
    truth = (dataset.array("audio")[rows], dataset.array("visual")[rows])
    lengths = dataset.array("lengths")[rows]

    def scores(model: "Han") -> dict[str, float]:
        found = _predictions(model, clips, rows)
        segment = avvp_scores(found["audio_hard"], found["visual_hard"], *truth, lengths=lengths)["segment"]
        return {f"val_{name}": segment[name] for name in ("A", "V", "AV", "Type", "Event")}

    return scores


STAGE = Stage(
    name="train-parser",
    kind="parser",
    version=1,
    summary="Train a parser on stored labels (HAN as UWAV released it) and store its predictions.",
    reads={
        "dataset": Reads("dataset", "Weak labels, and dense ones to select by."),
        "features": Reads("features", "What the parser sees and hears."),
        "labels": Reads("labels", "Pseudo-labels; not read with --targets weak.", required=False),
    },
    params=Params,
    run=run,
    example="avvp-pipe train-parser --dataset dataset/mine --features features/mine --labels labels/mine-uwav",
)
