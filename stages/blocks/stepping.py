"""One step of training: the gradient of a sum of terms, looked at before it changes anything.

With a scaler (fp16) the loss is multiplied before it goes backward, so that small gradients do not fall below what
sixteen bits can hold, and gradients are divided again before they are clipped. One that is not finite is then no
divergence yet: the step is left out and the scale halved, as `torch.amp.GradScaler` has it. Where the scale has come
down to one, it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from avvp_pipe.stages.blocks.optimisers import ALL

__all__ = ["DivergedError", "Stepper"]

LOWEST_SCALE = 1.0
"""Gradients that overflow with this scale do so by themselves."""


class DivergedError(ValueError):
    """A loss, a gradient or a validation score is not finite."""


@dataclass(frozen=True, slots=True)
class Stepper:
    """What steps each group of parameters."""

    parameters: Mapping[str, list[nn.Parameter]]
    optimisers: Mapping[str, torch.optim.Optimizer]
    clip_norm: float | None
    scaler: GradScaler | None = None
    """For losses that were computed in fp16; None for all others."""

    def step(self, group: str, terms: Mapping[str, Tensor], place: str) -> dict[str, float]:
        """Step one group down the sum of its terms; the loss and its terms before that.

        place: when that is, for errors. Raises DivergedError where loss or gradient is not finite, before anything is
        changed; ValueError for terms that cannot be told apart from the loss.
        """
        if "loss" in terms or not terms:
            raise ValueError(
                f"a loss has terms with names other than 'loss', their sum, but {list(terms) = }; rename it"
            )
        loss, optimiser = torch.stack(tuple(terms.values())).sum(), self.optimisers[group]
        optimiser.zero_grad()
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()  # type: ignore[no-untyped-call]
        if self.scaler is not None:
            self.scaler.unscale_(optimiser)
        limit = math.inf if self.clip_norm is None else self.clip_norm
        norm = nn.utils.clip_grad_norm_(self.parameters[group], limit)
        # One transfer from the device for all that is looked at.
        *values, size = torch.stack((loss, *terms.values(), norm)).detach().tolist()
        named = dict(zip(("loss", *terms), values, strict=True))
        if not all(map(math.isfinite, values)) or not (math.isfinite(size) or self._may_shrink()):
            raise DivergedError(
                f"training diverged in {place}: {', '.join(f'{name} = {value:.4g}' for name, value in named.items())}, "
                f"norm of the gradient = {size:.4g}{'' if group == ALL else f' of {group}'}; "
                "look for features that are not finite, or lower the learning rate"
            )
        self._change(optimiser)
        return named

    def _may_shrink(self) -> bool:
        return self.scaler is not None and self.scaler.get_scale() > LOWEST_SCALE

    def _change(self, optimiser: torch.optim.Optimizer) -> None:
        if self.scaler is None:
            optimiser.step()
            return
        self.scaler.step(optimiser)
        self.scaler.update()
