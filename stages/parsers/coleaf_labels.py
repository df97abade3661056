"""The clip labels that CoLeaF's released code trains on: smoothed, and where asked for, freed of likely noise.

A weak label says that a class occurs in a clip, not whether it is heard or seen.  Denoising (JoMoLD: "Joint-Modal
Label Denoising for Weakly-Supervised Audio-Visual Video Parsing", ECCV 2022) takes a class from one modality's label
where the batch holds few clips that fit it worse in that modality and few that fit it better in the other::

    visual label of class c is taken away  if  among the clips labelled c
        its visual loss is one of the n highest  and  its audio loss one of the n lowest,   n = ratio_c * clips

CoLeaF's release (github.com/faeghehsardari/coleaf at a36a153) does so with ratios from a file that it ships; its
paper does not mention it.  Here the ratios are parameters, and without them nothing is taken away.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from avvp_pipe.stages.blocks.attention import one_of
from avvp_pipe.stages.parsers.records import Moment

__all__ = ["NoiseWarmup", "denoised", "modality_labels", "noise_ratios", "noise_share"]

NoiseWarmup = Literal["code", "linear"]

_AUDIO_SMOOTH, _VISUAL_SMOOTH = 1.0, 0.9
_WARMUP_EPOCHS = 0.9
_EDGE = 1e-7

Pair = tuple[Tensor, Tensor]
"""Of audio and of visual."""


def modality_labels(weak: Tensor) -> Pair:
    """Weak labels (B, C) -> labels of audio, as they are, and of visual, 0.9 y + 0.05 (HAN, released code)."""
    clip = weak.float()
    audio, visual = (smooth * clip + (1 - smooth) * 0.5 for smooth in (_AUDIO_SMOOTH, _VISUAL_SMOOTH))
    return audio, visual


def noise_ratios(text: str, classes: int) -> Tensor | None:
    """A ratio for each class from a text of numbers with spaces between -> (C,) float64; None for an empty one.

    >>> noise_ratios("0.02 0.994", 2)
    tensor([0.0200, 0.9940], dtype=torch.float64)
    """
    if not text.strip():
        return None
    try:
        ratios = [float(number) for number in text.split()]
    except ValueError:
        ratios = []
    if len(ratios) != classes or not all(0 <= ratio <= 1 for ratio in ratios):
        raise ValueError(
            f"noise ratios are {classes} numbers in [0, 1], one a class, with spaces between, but came as {text!r}"
        )
    return torch.tensor(ratios, dtype=torch.float64)


def noise_share(moment: Moment, warmup: NoiseWarmup = "code") -> float:
    """How much of the ratios counts at this moment, in [0, 1].

    "linear": progress / 0.9 epochs, at most 1, as JoMoLD means it.  "code": the release multiplies the ratios of an
    epoch in place by that, which makes them 0 at its first batch: nothing in the first epoch, everything after.
    """
    one_of("noise_warmup", warmup, NoiseWarmup)
    if warmup == "code":
        return float(moment.epoch > 1)
    return min(1.0, (moment.epoch - 1 + moment.progress) / _WARMUP_EPOCHS)


def denoised(labels: Pair, probabilities: Pair, ratios: tuple[Tensor | None, Tensor | None]) -> Pair:
    """Set labels to 0 that the batch calls noise, as the head of this file has it.

    labels: of audio and visual, (B, C) in [0, 1]; probabilities (B, C): what the anchor says of each modality without
    looking at the other; ratios (C,) in [0, 1], None for a modality to leave alone.  A class is labelled where its
    label is above one half; n is rounded down.
    """
    heard, seen = (_entropy(probs, label) for probs, label in zip(probabilities, labels, strict=True))
    return _without_noise(labels[0], heard, seen, ratios[0]), _without_noise(labels[1], seen, heard, ratios[1])


def _entropy(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each clip and class."""
    clamped = probabilities.float().clamp(_EDGE, 1 - _EDGE)
    return -labels * clamped.log() - (1 - labels) * (1 - clamped).log()


def _without_noise(labels: Tensor, own: Tensor, other: Tensor, ratios: Tensor | None) -> Tensor:
    """Labels of one modality from its own losses and those of the other, (B, C) each."""
    if ratios is None:
        return labels
    labelled = labels > 0.5
    count = (ratios.to(labels.device) * labelled.sum(dim=0)).long()
    noise = (_rank(-own, labelled) < count) & (_rank(other, labelled) < count) & labelled
    return labels.masked_fill(noise, 0.0)


def _rank(values: Tensor, among: Tensor) -> Tensor:
    """Place of each value (B, C) in its column, 0 for the lowest, those not `among` last."""
    return values.masked_fill(~among, torch.inf).argsort(dim=0, stable=True).argsort(dim=0)
