"""Training one parser: what it is fed, what it minimises, how it is validated, from settled parameters of the stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from avvp_pipe.stages.blocks.device import tensor_on, torch_device
from avvp_pipe.stages.blocks.losses import ClassBalance, class_balance
from avvp_pipe.stages.blocks.optimisers import ALL
from avvp_pipe.stages.blocks.training import Fitted, Grouped, Optimiser, Schedule, StepSchedule, fit, seeded
from avvp_pipe.stages.parsers import parser_method
from avvp_pipe.stages.parsers.checking import check_labels, tell_training, training_rows
from avvp_pipe.stages.parsers.feeding import Feed, bytes_of, feed_of, keeps_in_memory
from avvp_pipe.stages.parsers.fitting import network_for, switched
from avvp_pipe.stages.parsers.objectives import MIXED, MODALITIES, SharedObjective, shared_terms
from avvp_pipe.stages.parsers.recipes import NETWORK_FIELDS
from avvp_pipe.stages.parsers.records import ParserMethod
from avvp_pipe.stages.parsers.validation import Parsing, Validation, validation_of
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["Job", "job_of", "trained"]

GIB = 2**30
Params = Any
"""Of the stage `train-parser`, settled."""


@dataclass(frozen=True, slots=True)
class Job:
    """All that training a parser needs."""

    method: ParserMethod
    network: Any
    """Its sizes and switches; a record of the method's."""
    switches: Any
    """Of an objective of its own, or None."""
    settings: Mapping[str, Any]
    """The stage's parameters by name, settled."""
    feed: Feed
    train: NDArray[np.intp]
    """Rows to learn from."""
    validation: Validation | None
    parsing: Parsing
    balance: Mapping[str, ClassBalance]


def job_of(inputs: Inputs, params: Params, progress: Progress) -> Job:
    """Check the inputs and read them. Raises ParameterError and StoreError where they do not fit the parser."""
    dataset, features, settings = inputs["dataset"], inputs["features"], dataclasses.asdict(params)
    labels = _labels(inputs, params)
    check_labels(dataset, features, labels)
    method = parser_method(params.parser)
    network, switches = switched(params.switches, method.network, method.switches)
    background = params.background == "column"
    changes = {name: settings[name] for name in NETWORK_FIELDS if settings[name] is not None}
    classes = len(dataset.attrs["classes"]) + background
    network = network_for(
        dataclasses.replace(method, network=network), features, classes, changes, params.widths or "published"
    )
    train = training_rows(dataset, features, labels, progress)
    validation = validation_of(dataset, features)
    tell_training(validation is not None, params.select, progress)
    if validation is not None and params.select not in validation.names:
        raise ParameterError(
            f"--select {params.select}: there is no such score; there are {', '.join(validation.names)}"
        )
    assert params.precision != "auto", "settled before a run"
    feed = _feed(dataset, features, labels, tuple(network.widths()), params, progress)
    parsing = Parsing(method.gate, background, params.precision)
    return Job(
        method, network, switches, settings, feed, train, validation, parsing, _balance(labels, feed, train, params)
    )


def _labels(inputs: Inputs, params: Params) -> Artifact | None:
    if params.targets == "weak":
        return None
    if "labels" not in inputs:
        raise ParameterError(
            f"targets = {params.targets!r} needs labels of every second; make them with `avvp-pipe pseudolabel` "
            "and give them as --labels labels/NAME, or train with --targets weak"
        )
    return inputs["labels"]


def _feed(
    dataset: Artifact,
    features: Artifact,
    labels: Artifact | None,
    names: tuple[str, ...],
    params: Params,
    progress: Progress,
) -> Feed:
    where, size = torch_device(params.device), bytes_of(features, names)
    in_memory = keeps_in_memory(params.features_in, size, where)
    if not in_memory:
        progress.note(f"features of {size / GIB:.1f} GiB are read batch by batch; they are not held in memory")
    targets = {} if labels is None else targets_of(labels, params)
    return feed_of(features, dataset, names, targets, where=where, in_memory=in_memory)


def targets_of(labels: Artifact, params: Params) -> dict[str, NDArray[np.float32]]:
    """What supervises seconds, as `Feed.targets`."""
    from scipy.special import softmax

    found: dict[str, NDArray[np.float32]] = {}
    for modality in MODALITIES:
        if params.segment == "kd":  # a question of which class, not of whether one
            logits = labels.array(f"{modality}_logits").astype(np.float32)
            found[modality] = softmax(np.nan_to_num(logits), axis=2)
        else:
            found[modality] = labels.array(f"{modality}_{params.targets}").astype(np.float32)
        if params.mixup not in (None, "none") and (params.segment == "kd" or params.mixup != params.targets):
            found[modality + MIXED] = labels.array(f"{modality}_{params.mixup}").astype(np.float32)
    return found


def _balance(labels: Artifact | None, feed: Feed, train: NDArray[np.intp], params: Params) -> dict[str, ClassBalance]:
    """Class-balanced weights from the hard labels of the training split, one pair a modality."""
    if labels is None or params.reweight in (None, "none"):
        return {}
    lengths = feed.lengths.cpu().numpy()[train]
    valid = tensor_on("cpu", np.arange(feed.segments) < lengths[:, None])
    return {
        modality: class_balance(
            tensor_on("cpu", labels.array(f"{modality}_hard")[train]),
            valid=valid,
            strength=params.balance or 0.0,
            form=params.reweight,
        )
        for modality in MODALITIES
    }


def trained(
    job: Job, *, checkpoint: Path | None = None, progress: Callable[[Mapping[str, float]], None] | None = None
) -> tuple[Fitted, nn.Module]:
    """Train the parser; it comes with its best weights. checkpoint, progress: as in `training.fit`."""
    settings, validation = job.settings, job.validation
    with seeded(settings["seed"], 0):
        model = job.method.build(job.network).to(job.feed.lengths.device)
    fitted = fit(
        model,
        _objective(model, job),
        clips=len(job.train),
        batch_size=settings["train_batch"],
        schedule=_schedule(settings),
        optimiser=Optimiser(
            settings["weight_decay"],
            betas=(settings["beta1"], settings["beta2"]),
            clip_norm=settings["clip_norm"] or None,
            fused=True,
            form=settings["optimiser"],
        ),
        seed=settings["seed"],
        validate=None if validation is None else lambda: validation.scores(model, job.feed, job.parsing),
        select=None if validation is None else settings["select"],
        ties=settings["ties"],
        patience=settings["patience"] or None if validation is not None else None,
        scaler=GradScaler(job.feed.lengths.device.type) if settings["precision"] == "fp16" else None,
        checkpoint=checkpoint,
        progress=progress,
    )
    return fitted, model


def _schedule(settings: Mapping[str, Any]) -> Schedule | StepSchedule:
    count, peak = settings["epochs"], settings["learning_rate"]
    if settings["schedule"] == "step":
        return StepSchedule(count, peak, settings["step_every"], settings["step_factor"])
    if settings["learning_rate_min"] > peak:
        raise ParameterError(
            f"--learning-rate-min {settings['learning_rate_min']} is above the peak --learning-rate {peak}; lower it"
        )
    return Schedule(count, settings["warmup"], peak, settings["learning_rate_min"])


def _objective(model: nn.Module, job: Job) -> Grouped:
    """What is minimised: the parser's own objective, or the parts that were asked for."""
    own = job.method.objective
    if own != "shared":
        groups: Any = getattr(model, "parameter_groups", lambda: {ALL: list(model.parameters())})
        return Grouped(
            lambda rows, moment: own(model, job.feed.batch(job.train[rows.numpy()]), moment, job.switches), groups()
        )
    one = job.settings
    shared = SharedObjective(
        video=one["video"],
        audio_smoothing=1.0 if one["audio_smoothing"] is None else one["audio_smoothing"],
        visual_smoothing=1.0 if one["visual_smoothing"] is None else one["visual_smoothing"],
        video_loss=one["video_loss"] or "bce",
        segment=one["segment"],
        balance=job.balance,
        mixup=one["mixup"] != "none",
        mixup_alpha=one["mixup_alpha"] or 0.0,
        background=job.parsing.background,
    )

    def terms(rows: Tensor) -> dict[str, Tensor]:
        batch = job.feed.batch(job.train[rows.numpy()])
        return shared_terms(model, job.parsing.outputs(model, batch), batch, shared)

    return Grouped(lambda rows, moment: [(ALL, terms(rows))], {ALL: list(model.parameters())})
