"""From logits to the labels that are stored, the same for labels made here and for labels that were imported."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.thresholds import class_minimum, hard_labels, soft_labels
from avvp_pipe.stages.rows import OK


@dataclass(frozen=True, slots=True)
class Clips:
    """What is known about the N clips that are labelled."""

    weak: NDArray[np.bool_]
    """(N, C)."""
    lengths: NDArray[Any]
    """(N,) seconds."""
    status: NDArray[np.uint8]
    """(N,); clips other than 1 get no label."""
    training: NDArray[np.bool_]
    """(N,) clips whose lowest logits stand in for thresholds of -inf."""
    segments: int
    """T."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N, T, 1): seconds that exist, of clips that did not fail."""
        there = np.arange(self.segments) < self.lengths[:, None]
        return np.asarray((there & (self.status == OK)[:, None])[:, :, None])


def stored_hard(logits: NDArray[Any], thresholds: NDArray[Any], clips: Clips) -> NDArray[np.bool_]:
    """(logit > threshold) and weak, within the seconds that exist: (N, T, C) bool."""
    return hard_labels(logits, thresholds, clips.weak) & clips.valid


def stored_soft(
    logits: NDArray[Any], thresholds: NDArray[Any], clips: Clips, *, temperature: float
) -> NDArray[np.float32]:
    """sigmoid((logit - threshold) / temperature) where the weak label names the class, else 0: (N, T, C) float32.

    A threshold of -inf is taken as the lowest logit of the training clips that did not fail, minus 1.
    """
    training = clips.training & (clips.status == OK)
    floor = class_minimum(logits[training], lengths=clips.lengths[training])
    soft = soft_labels(logits, thresholds, clips.weak, temperature=temperature, floor=floor)
    return np.where(clips.valid, soft, np.float32(0))
