"""From logits to the labels that are stored, the same for labels made here and for labels that were imported."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.thresholds import class_minimum, hard_labels, soft_labels
from avvp_pipe.stages.rows import OK

Soft = Literal["margin", "probability", "literal", "certain"]
"""What a soft label is: sigmoid((logit - threshold) / temperature); sigmoid(logit); sigmoid(sigmoid(logit) -
sigmoid(threshold)), which is EAR's Eq. 9 to the letter; or the hard label as a number."""


@dataclass(frozen=True, slots=True)
class Clips:
    """What is known about the N clips that are labelled."""

    weak: NDArray[np.bool_]
    """(N, C) classes that may be called."""
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
    logits: NDArray[Any],
    thresholds: NDArray[Any],
    clips: Clips,
    *,
    temperature: float,
    floor: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """sigmoid((logit - threshold) / temperature) where the weak label names the class, else 0: (N, T, C) float32.

    A threshold of -inf is taken as `floor` (C,) - 1; without one, as the lowest logit of the training clips that did
    not fail, minus 1.
    """
    if floor is None and np.isneginf(thresholds).any():
        floor = lowest(logits, clips)
    soft = soft_labels(logits, thresholds, clips.weak, temperature=temperature, floor=floor)
    return np.where(clips.valid, soft, np.float32(0))


def lowest(logits: NDArray[Any], clips: Clips) -> NDArray[np.float32]:
    """The lowest logit of each class over the training clips that did not fail: (C,); +inf where there are none."""
    training = clips.training & (clips.status == OK)
    return class_minimum(logits[training], lengths=clips.lengths[training])


def soft_by(
    rule: Soft,
    logits: NDArray[Any],
    thresholds: NDArray[Any],
    clips: Clips,
    *,
    temperature: float,
    floor: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """The soft labels of a rule: (N, T, C) float32. temperature, floor: of "margin" alone, as of `stored_soft`."""
    if rule == "margin":
        return stored_soft(logits, thresholds, clips, temperature=temperature, floor=floor)
    if rule == "certain":
        return stored_hard(logits, thresholds, clips).astype(np.float32)
    if rule == "literal":
        return stored_soft(_sigmoid(logits), _sigmoid(thresholds), clips, temperature=1.0)
    return stored_soft(logits, np.zeros_like(thresholds), clips, temperature=1.0)


def floors_of_batches(logits: NDArray[Any], clips: Clips, *, batch: int) -> list[tuple[slice, NDArray[np.float32]]]:
    """For so many consecutive clips at a time, the lowest logit of each class among them, whatever their weak labels.

    As UWAV's release takes it over a mini-batch; 0 where no clip of a batch did not fail, of which no label is made.
    """
    found = []
    for start in range(0, len(logits), batch):
        rows = slice(start, start + batch)
        least = class_minimum(logits[rows], lengths=clips.lengths[rows])
        found.append((rows, np.where(np.isfinite(least), least, np.float32(0))))
    return found


def of_rows(clips: Clips, rows: slice) -> Clips:
    """Some of the clips."""
    return Clips(clips.weak[rows], clips.lengths[rows], clips.status[rows], clips.training[rows], clips.segments)


def _sigmoid(values: NDArray[Any]) -> NDArray[np.float32]:
    """The logistic function by tanh, which cannot overflow; 0 and 1 at the infinities."""
    return np.asarray(0.5 + 0.5 * np.tanh(np.asarray(values, np.float32) / 2), np.float32)
