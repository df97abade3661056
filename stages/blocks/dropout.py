"""Dropout that does not wait for its random numbers.

On a processor torch draws a whole random number for each value, one after the other, which takes a third of the time
of training a small transformer. Sixteen bits decide as well whether a value is dropped, and one drawn number holds
four times sixteen. On CUDA, where the numbers are drawn in parallel, torch's own is used.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Dropout", "dropout"]

_STEPS = 2**16


def dropout(values: Tensor, share: float, *, in_place: bool = False) -> Tensor:
    """Set a share of the values to zero, at random from torch's global generator, and scale up the others.

    values: float32 or bfloat16, of any shape; share in [0, 1), on the CPU rounded to the nearest 1/65536. What is left
    is multiplied by 1 / (1 - share), so that the expectation of each value is itself. in_place: `values` may be
    overwritten; allowed where nothing else needs them, be it for its gradient.
    """
    if values.device.type != "cpu":
        return functional.dropout(values, share, inplace=in_place)
    factors = _factors(values, share)
    return values.mul_(factors) if in_place else values * factors


def _factors(values: Tensor, share: float) -> Tensor:
    """Zero for what is dropped, 1 / (1 - share) for the rest; shape and type of the values."""
    steps = min(round(share * _STEPS), _STEPS - 1)
    numbers = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    drawn = numbers.view(torch.int16)[: values.numel()].view(values.shape)
    scale = torch.tensor(_STEPS / (_STEPS - steps), dtype=values.dtype)
    kept = drawn.ge_(steps - _STEPS // 2)  # 0 or 1, in the place of what was drawn
    if values.dtype == torch.bfloat16:  # as wide: one times the bits of a number are the bits of the number
        return kept.mul_(scale.view(torch.int16)).view(torch.bfloat16)
    return kept.to(values.dtype).mul_(scale)


class Dropout(nn.Module):
    """`dropout` in training, in place; nothing otherwise."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, which are overwritten -> the same shape."""
        return dropout(values, self.share, in_place=True) if self.training and self.share else values
