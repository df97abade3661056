"""One training loop for everything that is trained here: deterministic, and resumable after each epoch.

    for each epoch:  shuffle -> batches -> losses -> AdamW    (learning rate: `schedules.py`)
                     validate -> keep the best -> checkpoint  (one file, replaced in one step)

Every epoch draws its randomness from (seed, epoch) alone.  A run that is killed, in whatever way, and
started again with the same arguments therefore ends with the same bits as one that was not, on the same
machine and number of threads: what an interrupted epoch had done is done again.

The recipe (AdamW, clipped gradients, schedule, strictly better score) is that of VALOR's and UWAV's release.  Networks
of which parts are trained by turns, as CoLeaF's, give an `optimisers.Grouped` instead of a loss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from avvp_pipe.stages.blocks.batching import random_batches
from avvp_pipe.stages.blocks.checkpoints import CheckpointError, read_checkpoint, write_checkpoint
from avvp_pipe.stages.blocks.optimisers import Grouped, Optimiser, one_group, optimisers_of
from avvp_pipe.stages.blocks.schedules import Moment, Schedule, StepSchedule
from avvp_pipe.stages.blocks.stepping import DivergedError, Stepper

__all__ = ["DivergedError", "Fitted", "Grouped", "Moment", "Optimiser", "Schedule", "StepSchedule", "fit", "seeded"]

Optimisers = Mapping[str, torch.optim.Optimizer]
"""Group -> what steps it."""

Record = dict[str, float]
"""Of one epoch: epoch, rate, loss, each term of the loss, each validation score."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What training made."""

    best: dict[str, Tensor]
    """Weights of the epoch with the best validation score, or of the last one without validation."""
    best_epoch: int
    """Counted from 1."""
    last: dict[str, Tensor]
    """Weights after the last epoch."""
    history: tuple[Record, ...]
    """One record an epoch: epoch, rate, loss, each term of the loss, each validation score."""


@dataclass
class _Run:
    """How far training has come."""

    history: list[Record] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0


def fit(
    model: nn.Module,
    loss_of_batch: Callable[[Tensor], Mapping[str, Tensor]] | Grouped,
    *,
    clips: int,
    batch_size: int,
    schedule: Schedule | StepSchedule,
    optimiser: Optimiser,
    seed: int,
    batches: Callable[[], list[Tensor]] | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    select: str | None = None,
    ties: Literal["first", "last"] = "first",
    patience: int | None = None,
    scaler: GradScaler | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Fitted:
    """Train the model on `clips` clips; it ends with the best weights.

    loss_of_batch: rows (b,) int64 on the CPU -> named scalar terms, whose sum is minimised; weights of terms
    are the caller's.  Randomness (batches, dropout, mixup) comes from torch's global generators, seeded here.
    batches: draws the rows of each batch of an epoch; left out, random ones of `batch_size`.
    validate: called after each epoch in eval mode without gradients -> named scores; `select` names the one
    whose highest value picks the best epoch, of equals the `ties` one.  Without both, the last epoch is the best.
    patience: stop after so many epochs in a row without a new best one.
    scaler: of the loss, where it was computed in fp16; its state is part of the checkpoint.
    checkpoint: file to go on from if it exists, and to write after each epoch.
    progress: called with each new epoch's record, after its checkpoint is written.

    Raises DivergedError where a loss, gradient or the selecting score is not finite; CheckpointError where
    the checkpoint is damaged or of a run with other settings.
    """
    if clips < 1 or batch_size < 1:
        raise ValueError(f"training needs clips and a batch size of at least one, but {clips = }, {batch_size = }")
    if (select is None) != (validate is None):
        raise ValueError(f"`select` names a score that `validate` returns; give both or neither, not {select = }")
    rules = {"clips": clips, "batch_size": batch_size, "seed": seed, "select": select, "ties": ties}
    settings = _settings(schedule, optimiser, **rules, patience=patience)
    objective = loss_of_batch if isinstance(loss_of_batch, Grouped) else one_group(model, loss_of_batch)
    optimisers = optimisers_of(objective, optimiser, rate=schedule.rate(1))
    stepper = Stepper(objective.parameters, optimisers, optimiser.clip_norm, scaler)
    run = _resume(checkpoint, model, stepper, settings)
    for epoch in range(len(run.history) + 1, schedule.epochs + 1):
        if patience is not None and len(run.history) - run.best_epoch >= patience:
            break
        record: Record = {"epoch": epoch, "rate": _set_rate(optimisers, schedule.rate(epoch))}
        with _telling_what_is_kept(checkpoint, epoch), seeded(seed, epoch, device=_device(model)):
            drawn = batches() if batches else random_batches(clips, batch_size)
            moments = _moments(epoch, schedule.epochs, len(drawn))
            _add(record, _train_epoch(model, objective, stepper, drawn, moments))
        _add(record, _scores(model, validate, select))
        _keep_best(run, model, record, select, ties)
        if checkpoint is not None:
            _save(checkpoint, run, model, stepper, settings)
        if progress is not None:
            progress(record)
    last = _snapshot(model)
    model.load_state_dict(run.best)
    return Fitted(run.best, run.best_epoch, last, tuple(run.history))


@contextlib.contextmanager
def _telling_what_is_kept(checkpoint: Path | None, epoch: int) -> Iterator[None]:
    """Add to an error of divergence where the last good state lies."""
    try:
        yield
    except DivergedError as error:
        if checkpoint is None or epoch == 1:
            raise
        raise DivergedError(f"{error}. The state after epoch {epoch - 1} is kept in {checkpoint}") from None


def _set_rate(optimisers: Optimisers, rate: float) -> float:
    for optimiser in optimisers.values():
        for group in optimiser.param_groups:
            group["lr"] = rate
    return rate


def _moments(epoch: int, epochs: int, batches: int) -> list[Moment]:
    """Of each batch of an epoch; every epoch has as many."""
    return [Moment(epoch, epochs, number / batches, (epoch - 1) * batches + number) for number in range(batches)]


@contextlib.contextmanager
def seeded(*numbers: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch from whole numbers >= 0 for the length of a block; afterwards all is as it was before.

    device: the one, besides the CPU, whose generator is seeded and restored.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    seed = int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield


def _settings(schedule: Schedule | StepSchedule, optimiser: Optimiser, **others: int | str | None) -> dict[str, Any]:
    """What must not differ between the run that wrote a checkpoint and the one that goes on from it."""
    return dataclasses.asdict(schedule) | dataclasses.asdict(optimiser) | others


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _train_epoch(
    model: nn.Module, objective: Grouped, stepper: Stepper, batches: list[Tensor], moments: list[Moment]
) -> Record:
    """Go once through the batches; the mean over clips of the loss and of each of its terms."""
    model.train()
    sums: Record = {}
    for number, (rows, moment) in enumerate(zip(batches, moments, strict=True), 1):
        place = f"epoch {moment.epoch}, batch {number} of {len(batches)}"
        named: Record = {"loss": 0.0}
        for group, terms in objective.terms(rows, moment):
            stepped = stepper.step(group, terms, place)
            named["loss"] += stepped.pop("loss")
            _add(named, stepped)
        for name, value in named.items():
            sums[name] = sums.get(name, 0.0) + value * len(rows)
    clips = sum(map(len, batches))
    return {name: total / clips for name, total in sums.items()}


def _scores(model: nn.Module, validate: Callable[[], Mapping[str, float]] | None, select: str | None) -> Record:
    if validate is None:
        return {}
    model.eval()
    with torch.no_grad():
        # Plain numbers, because numpy's are refused when a checkpoint is read back safely.
        scores = {name: float(value) for name, value in validate().items()}
    if select not in scores:
        raise ValueError(f"no validation score {select!r}; there are {', '.join(scores)}")
    return scores


def _add(record: Record, more: Record) -> None:
    taken = sorted(record.keys() & more.keys())
    if taken:
        raise ValueError(f"an epoch's record holds each name once, but {', '.join(taken)} came twice; rename it")
    record.update(more)


def _keep_best(run: _Run, model: nn.Module, record: Record, select: str | None, ties: str) -> None:
    """Take the epoch into the history, and its weights if they are the best so far."""
    best_before = -math.inf
    if select is not None:
        if not math.isfinite(record[select]):
            raise DivergedError(
                f"validation score {select!r} is {record[select]} after epoch {record['epoch']:.0f}; the best epoch "
                "cannot be found without a number"
            )
        best_before = run.history[run.best_epoch - 1][select] if run.history else -math.inf
    run.history.append(record)
    if select is None or record[select] > best_before or (ties == "last" and record[select] == best_before):
        run.best, run.best_epoch = _snapshot(model), len(run.history)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(file: Path, run: _Run, model: nn.Module, stepper: Stepper, settings: dict[str, Any]) -> None:
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimisers": {name: optimiser.state_dict() for name, optimiser in stepper.optimisers.items()},
        "best": run.best,
        "best_epoch": run.best_epoch,
        "history": run.history,
    }
    if stepper.scaler is not None:
        state["scaler"] = stepper.scaler.state_dict()
    write_checkpoint(file, state)


def _resume(file: Path | None, model: nn.Module, stepper: Stepper, settings: dict[str, Any]) -> _Run:
    """Put model, optimisers and scaler where the checkpoint left them; a fresh run if there is none."""
    if file is None or not file.exists():
        return _Run()
    state = read_checkpoint(file, settings=settings, device=_device(model))
    if ("scaler" in state) != (stepper.scaler is not None):
        raise CheckpointError(f"{file} was trained in another precision; delete it to train from the start")
    try:
        model.load_state_dict(state["model"])
        for name, optimiser in stepper.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        if stepper.scaler is not None:
            stepper.scaler.load_state_dict(state["scaler"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{file} is of another network ({error}); delete it to train from the start") from None
    return _Run(state["history"], state["best"], state["best_epoch"])
