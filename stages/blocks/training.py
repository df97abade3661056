"""One training loop for everything that is trained here: deterministic, and resumable after each epoch.

    for each epoch:  shuffle -> batches -> losses -> AdamW    (learning rate: warm-up, then cosine)
                     validate -> keep the best -> checkpoint  (one file, replaced in one step)

Every epoch draws its randomness from (seed, epoch) alone.  A run that is killed, in whatever way, and
started again with the same arguments therefore ends with the same bits as one that was not, on the same
machine and number of threads: what an interrupted epoch had done is done again.

The recipe (AdamW, clipped gradients, schedule, strictly better score) is that of VALOR's and UWAV's release.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.batching import random_batches
from avvp_pipe.stages.blocks.checkpoints import CheckpointError, read_checkpoint, write_checkpoint

__all__ = ["DivergedError", "Fitted", "Optimiser", "Schedule", "fit", "seeded"]

Record = dict[str, float]
"""Of one epoch: epoch, rate, loss, each term of the loss, each validation score."""


class DivergedError(ValueError):
    """A loss, a gradient or a validation score is not finite."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Learning rate per epoch: a linear warm-up to the peak, then half a cosine down to the minimum."""

    epochs: int = 80
    warmup: int = 10
    """Epochs; the last of them runs at the peak."""
    peak: float = 1e-4
    minimum: float = 1e-5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.warmup < 0 or not 0 <= self.minimum <= self.peak < math.inf:
            raise ValueError(
                f"a schedule has at least one epoch, a warm-up of zero or more, and 0 <= minimum <= peak, but {self}"
            )

    def rate(self, epoch: int) -> float:
        """Learning rate throughout an epoch, counted from 1 (VALOR and UWAV, released code).

        Where the warm-up is as long as the run or longer, the rate only rises; the release divides by zero.

        >>> [Schedule(epochs=5, warmup=2, peak=1.0, minimum=0.0).rate(epoch) for epoch in (1, 2, 5)]
        [0.5, 1.0, 0.0]
        """
        if epoch < self.warmup:
            return epoch / self.warmup * self.peak
        if epoch == self.warmup:
            return self.peak
        turn = math.pi * (epoch - self.warmup) / (self.epochs - self.warmup)
        return self.minimum + 0.5 * (self.peak - self.minimum) * (1 + math.cos(turn))


@dataclass(frozen=True, slots=True)
class Optimiser:
    """AdamW; the defaults are those of UWAV's parser.  The learning rate is the schedule's."""

    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this norm; None for as they are."""
    fused: bool = False
    """One pass over the weights instead of one for each operation: several times as fast, and other last bits."""


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
    loss_of_batch: Callable[[Tensor], Mapping[str, Tensor]],
    *,
    clips: int,
    batch_size: int,
    schedule: Schedule,
    optimiser: Optimiser,
    seed: int,
    batches: Callable[[], list[Tensor]] | None = None,
    validate: Callable[[], Mapping[str, float]] | None = None,
    select: str | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Record], None] | None = None,
) -> Fitted:
    """Train the model on `clips` clips; it ends with the best weights.

    loss_of_batch: rows (b,) int64 on the CPU -> named scalar terms, whose sum is minimised; weights of terms
    are the caller's.  Randomness (batches, dropout, mixup) comes from torch's global generators, seeded here.
    batches: draws the rows of each batch of an epoch; left out, random ones of `batch_size`.
    validate: called after each epoch in eval mode without gradients -> named scores; `select` names the one
    whose strictly highest value picks the best epoch.  Without both, the last epoch is the best.
    checkpoint: file to go on from if it exists, and to write after each epoch.
    progress: called with each new epoch's record, after its checkpoint is written.

    Raises DivergedError where a loss, gradient or the selecting score is not finite; CheckpointError where
    the checkpoint is damaged or of a run with other settings.
    """
    if clips < 1 or batch_size < 1:
        raise ValueError(f"training needs clips and a batch size of at least one, but {clips = }, {batch_size = }")
    if (select is None) != (validate is None):
        raise ValueError(f"`select` names a score that `validate` returns; give both or neither, not {select = }")
    settings = _settings(schedule, optimiser, clips=clips, batch_size=batch_size, seed=seed, select=select)
    adamw = _adamw(model, schedule, optimiser)
    run = _resume(checkpoint, model, adamw, settings)
    for epoch in range(len(run.history) + 1, schedule.epochs + 1):
        record: Record = {"epoch": epoch, "rate": schedule.rate(epoch)}
        for group in adamw.param_groups:
            group["lr"] = record["rate"]
        with seeded(seed, epoch, device=_device(model)):
            drawn = batches() if batches else random_batches(clips, batch_size)
            terms = _train_epoch(model, loss_of_batch, adamw, drawn, epoch, optimiser.clip_norm)
        _add(record, terms)
        _add(record, _scores(model, validate, select))
        _keep_best(run, model, record, select)
        if checkpoint is not None:
            _save(checkpoint, run, model, adamw, settings)
        if progress is not None:
            progress(record)
    last = _snapshot(model)
    model.load_state_dict(run.best)
    return Fitted(run.best, run.best_epoch, last, tuple(run.history))


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


def _settings(schedule: Schedule, optimiser: Optimiser, **others: int | str | None) -> dict[str, Any]:
    """What must not differ between the run that wrote a checkpoint and the one that goes on from it."""
    return dataclasses.asdict(schedule) | dataclasses.asdict(optimiser) | others


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _adamw(model: nn.Module, schedule: Schedule, optimiser: Optimiser) -> torch.optim.AdamW:
    return torch.optim.AdamW(
        model.parameters(),
        lr=schedule.rate(1),
        betas=optimiser.betas,
        eps=optimiser.eps,
        weight_decay=optimiser.weight_decay,
        fused=optimiser.fused or None,
    )


def _train_epoch(
    model: nn.Module,
    loss_of_batch: Callable[[Tensor], Mapping[str, Tensor]],
    adamw: torch.optim.AdamW,
    batches: list[Tensor],
    epoch: int,
    clip_norm: float | None,
) -> Record:
    """Go once through the batches; the mean over clips of the loss and of each of its terms."""
    model.train()
    sums: Record = {}
    for number, rows in enumerate(batches, 1):
        terms = loss_of_batch(rows)
        if "loss" in terms or not terms:
            raise ValueError(
                f"a loss has terms with names other than 'loss', their sum, but {list(terms) = }; rename it"
            )
        loss = torch.stack(tuple(terms.values())).sum()
        adamw.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(model.parameters(), math.inf if clip_norm is None else clip_norm)
        # One transfer from the device for all that is looked at.
        *values, size = torch.stack((loss, *terms.values(), norm)).detach().tolist()
        named = dict(zip(("loss", *terms), values, strict=True))
        if not all(map(math.isfinite, (*values, size))):
            raise DivergedError(
                f"training diverged in epoch {epoch}, batch {number} of {len(batches)}: "
                f"{', '.join(f'{name} = {value:.4g}' for name, value in named.items())}, norm of the gradient = "
                f"{size:.4g}; look for features that are not finite, or lower the learning rate"
            )
        adamw.step()
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


def _keep_best(run: _Run, model: nn.Module, record: Record, select: str | None) -> None:
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
    if select is None or record[select] > best_before:
        run.best, run.best_epoch = _snapshot(model), len(run.history)


def _snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(file: Path, run: _Run, model: nn.Module, adamw: torch.optim.AdamW, settings: dict[str, Any]) -> None:
    write_checkpoint(
        file,
        {
            "settings": settings,
            "model": model.state_dict(),
            "optimiser": adamw.state_dict(),
            "best": run.best,
            "best_epoch": run.best_epoch,
            "history": run.history,
        },
    )


def _resume(file: Path | None, model: nn.Module, adamw: torch.optim.AdamW, settings: dict[str, Any]) -> _Run:
    """Put model and optimiser where the checkpoint left them; a fresh run if there is none."""
    if file is None or not file.exists():
        return _Run()
    state = read_checkpoint(file, settings=settings, device=_device(model))
    try:
        model.load_state_dict(state["model"])
        adamw.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{file} is of another network ({error}); delete it to train from the start") from None
    return _Run(state["history"], state["best"], state["best_epoch"])
