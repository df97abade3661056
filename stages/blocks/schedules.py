"""How fast training learns in each epoch, and where it stands. No torch at import."""

import math
from dataclasses import dataclass

__all__ = ["Moment", "Schedule", "StepSchedule"]


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
class StepSchedule:
    """Learning rate per epoch: the peak, multiplied by a factor after every so many epochs (torch's StepLR)."""

    epochs: int = 40
    peak: float = 3e-4
    every: int = 10
    """Epochs at one rate."""
    factor: float = 0.1

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.every < 1 or not 0 < self.factor <= 1 or not 0 <= self.peak < math.inf:
            raise ValueError(
                "a schedule has at least one epoch, steps of at least one, a factor in (0, 1] and a peak of zero or "
                f"more, but {self}"
            )

    def rate(self, epoch: int) -> float:
        """Learning rate throughout an epoch, counted from 1 (HAN and CoLeaF, released code).

        >>> [StepSchedule(peak=1.0, every=10, factor=0.5).rate(epoch) for epoch in (1, 10, 11, 21)]
        [1.0, 1.0, 0.5, 0.25]
        """
        return self.peak * float(self.factor ** ((epoch - 1) // self.every))


@dataclass(frozen=True, slots=True)
class Moment:
    """Where training stands when a batch is drawn."""

    epoch: int
    """From 1."""
    epochs: int
    """Of the whole run."""
    progress: float
    """In [0, 1): how much of this epoch's batches came before this one."""
    step: int
    """Batches since the beginning of the run, 0 for the first."""
