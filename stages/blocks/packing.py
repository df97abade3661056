"""Padded and packed: clips of different lengths as a box with empty seconds in it, and as a list of real seconds.

    padded (B, T, D)   clip 0  [ s s s s ]        packed (M, D)   [ s s s s s s s ]
                       clip 1  [ s s . . ]                          clip 0  |1 | 2
                       clip 2  [ s . . . ]

What works second by second (linear layers, norms, dropout: nearly all of a transformer's work) is done on packed
seconds and costs nothing for padding; attention, which looks across a clip, is done on the padded form.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Packing", "pack", "packing_of"]


@dataclass(frozen=True, slots=True)
class Packing:
    """Which seconds of a padded batch are real."""

    places: Tensor
    """(M,) int64, ascending: numbers b * T + t of the real seconds."""
    clips: int
    """B."""
    segments: int
    """T."""

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, D) -> (M, D): what stands in padding is left behind."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def spread(self, packed: Tensor) -> Tensor:
        """(M, D) -> (B, T, D), zero in padding."""
        empty = packed.new_zeros(self.clips * self.segments, packed.shape[1])
        return empty.index_copy(0, self.places, packed).view(self.clips, self.segments, -1)


def packing_of(valid: Tensor) -> Packing | None:
    """How to pack a batch whose real seconds are marked: valid (B, T) bool. None where nothing is padding."""
    places = valid.flatten().nonzero()[:, 0]
    return None if len(places) == valid.numel() else Packing(places, *valid.shape)


def pack(padded: Tensor, packing: Packing | None) -> Tensor:
    """`padded` itself where there is no packing."""
    return padded if packing is None else packing.pack(padded)
