"""The optimisers that training steps: one for all weights, or one for each of several groups."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.schedules import Moment

__all__ = ["ALL", "Grouped", "Optimiser", "one_group", "optimisers_of"]

ALL = "all"
"""The name of the group of a network that has one."""
Terms = Mapping[str, Tensor]


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
    form: Literal["adamw", "adam"] = "adamw"
    """`adam`: weight decay is part of the gradient (HAN and CoLeaF, which have none)."""

    def over(self, parameters: Iterable[nn.Parameter], *, rate: float) -> torch.optim.Optimizer:
        """An optimiser of torch's over these parameters, at this learning rate."""
        make = torch.optim.AdamW if self.form == "adamw" else torch.optim.Adam
        return make(
            parameters,
            lr=rate,
            betas=self.betas,
            eps=self.eps,
            weight_decay=self.weight_decay,
            fused=self.fused or None,
        )


@dataclass(frozen=True, slots=True)
class Grouped:
    """An objective whose parameter groups are stepped one after the other within each batch."""

    terms: Callable[[Tensor, Moment], Iterable[tuple[str, Terms]]]
    """Rows (b,) int64 on the CPU, and when -> group, named scalar terms whose sum it minimises.  From a generator, a
    group's terms are computed after the earlier groups were stepped."""
    parameters: Mapping[str, list[nn.Parameter]]
    """Group -> its parameters."""


def one_group(model: nn.Module, loss_of_batch: Callable[[Tensor], Terms]) -> Grouped:
    """All parameters of a model, stepped at once."""
    return Grouped(lambda rows, moment: [(ALL, loss_of_batch(rows))], {ALL: list(model.parameters())})


def optimisers_of(objective: Grouped, optimiser: Optimiser, *, rate: float) -> dict[str, torch.optim.Optimizer]:
    """One optimiser for each group."""
    return {name: optimiser.over(parameters, rate=rate) for name, parameters in objective.parameters.items()}
