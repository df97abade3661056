"""Something small to learn, for the tests of the training loop.

Run as a program, this file trains until a given moment and kills itself with SIGKILL.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.training import Fitted, Grouped, Moment, Optimiser, Schedule, fit, seeded

CLIPS, EPOCHS = 11, 5
SCHEDULE = Schedule(epochs=EPOCHS, warmup=2, peak=1e-2, minimum=1e-3)


class Problem:
    """Something small to learn, with all that training has: dropout, noise of its own, a score, several terms."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.features = torch.randn(CLIPS, 6, generator=draw)
        self.targets = (self.features[:, :2] > 0).float()
        with seeded(7):
            self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.seen: list[list[int]] = []

    def loss(self, rows: Tensor) -> Mapping[str, Tensor]:
        self.seen.append(rows.tolist())
        noisy = self.features[rows] + 0.1 * torch.randn(len(rows), 6)
        logits = self.model(noisy)
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, self.targets[rows])
        return {"entropy": entropy, "size": 0.01 * logits.square().mean()}

    def score(self) -> Mapping[str, float]:
        # numpy's numbers, as metrics return them.
        right = ((self.model(self.features) > 0) == self.targets.bool()).numpy()
        return {"accuracy": cast(float, np.float64(right.mean())), "first": cast(float, np.float64(right[:, 0].mean()))}

    def fit(self, **changes: Any) -> Fitted:
        arguments: dict[str, Any] = {
            "clips": CLIPS,
            "batch_size": 4,
            "schedule": SCHEDULE,
            "optimiser": Optimiser(weight_decay=1e-3),
            "seed": 3,
            "validate": self.score,
            "select": "accuracy",
        }
        return fit(self.model, self.loss, **(arguments | changes))


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def assert_same(first: Fitted, second: Fitted) -> None:
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    assert same(first.best, second.best)
    assert same(first.last, second.last)


class InterruptedRunError(Exception):
    """What the tests interrupt with."""


def interrupt_after(epoch: int) -> Callable[[Mapping[str, float]], None]:
    def progress(record: Mapping[str, float]) -> None:
        if record["epoch"] == epoch:
            raise InterruptedRunError

    return progress


def constant_scores(*scores: float) -> Callable[[], Mapping[str, float]]:
    left = list(scores)
    return lambda: {"accuracy": left.pop(0)}


class ByTurns(Problem):
    """The first layer and the last one have an optimiser each; the last one's loss sees the first one's step."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []
        self.first_weights: list[Tensor] = []
        self.first, self.last = (cast(nn.Linear, self.model[place]) for place in (0, 3))

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"first": list(self.first.parameters()), "last": list(self.last.parameters())}

    def terms(self, rows: Tensor, moment: Moment) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        self.moments.append(moment)
        self.first_weights.append(self.first.weight.detach().clone())
        yield "first", {f"{name}_first": value for name, value in Problem.loss(self, rows).items()}
        self.first_weights.append(self.first.weight.detach().clone())
        yield "last", {f"{name}_last": value for name, value in Problem.loss(self, rows).items()}

    def fit(self, **changes: Any) -> Fitted:
        grouped = Grouped(self.terms, self.groups)
        arguments: dict[str, Any] = {"clips": CLIPS, "batch_size": 4, "schedule": SCHEDULE, "optimiser": Optimiser()}
        return fit(
            self.model, grouped, **(arguments | {"seed": 3, "validate": self.score, "select": "accuracy"} | changes)
        )


def die_in_write(file: Path, number: int) -> None:
    """Train, and die once the given checkpoint's bytes are written but not yet in their place."""
    written = 0

    def fsync(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written == number:
            os.truncate(file.with_name(file.name + ".part"), 100)
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync  # type: ignore[assignment]
    Problem().fit(checkpoint=file)


if __name__ == "__main__":
    die_in_write(Path(sys.argv[1]), int(sys.argv[2]))
