"""Which clips go through a network together, in one step of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

__all__ = ["Batching", "batches_of", "length_batches", "random_batches"]

Batching = Literal["random", "length"]
POOL = 16
"""Batches that are drawn together before they are sorted: many make batches more even, and less random."""


def random_batches(clips: int, size: int) -> list[Tensor]:
    """All clips once, in random order (torch's global generator): row numbers (b,) int64, b = `size` but in the last.

    Every released loader does so.
    """
    return list(torch.split(torch.randperm(clips), size))


def length_batches(lengths: Tensor, size: int, *, pool: int = POOL) -> list[Tensor]:
    """All clips once, in random order, but with clips of similar length (N,) side by side.

    The clips are shuffled and cut into pools of `pool` batches; each pool is sorted by length (clips of one length
    stay shuffled) and cut into batches; these are shuffled. Randomness is from torch's global generator.
    """
    batches: list[Tensor] = []
    for rows in torch.split(torch.randperm(len(lengths)), pool * size):
        batches.extend(torch.split(rows[lengths[rows].argsort(stable=True)], size))
    return [batches[number] for number in torch.randperm(len(batches)).tolist()]


def batches_of(batching: Batching, lengths: Tensor, size: int) -> Callable[[], list[Tensor]]:
    """The function that draws an epoch's batches; lengths (N,) on the CPU."""
    if batching not in get_args(Batching):
        raise ValueError(f"no batching {batching!r}; there are {', '.join(get_args(Batching))}")
    if batching == "random":
        return lambda: random_batches(len(lengths), size)
    return lambda: length_batches(lengths, size)
