"""Attentive pooling: from what is in each second to what is in the clip.

Weak labels speak of whole clips, parsers of seconds.  Multimodal multiple instance learning (MMIL) of
HAN (arXiv:2007.10558) bridges the two: for every class, a clip's probability is a weighted mean of its
seconds' probabilities, where the network itself learns which second and which modality to trust.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["AttentivePooling", "ClipProbabilities", "attentive_pooling"]


class ClipProbabilities(NamedTuple):
    """Probability of each class in each clip, (B, C) each, in [0, 1]."""

    video: Tensor
    """In either modality."""
    audio: Tensor
    visual: Tensor


def attentive_pooling(
    probabilities: Tensor, time_logits: Tensor, modality_logits: Tensor, valid: Tensor | None = None
) -> ClipProbabilities:
    """Pool seconds into clips: p_m = sum_t A[t] P[t, m], p = sum_{t, m} A[t, m] B[t, m] P[t, m].

    A is the softmax over time of each modality, B the softmax over the two modalities; both per class.
    All inputs (B, T, 2, C), the 2 being audio and visual; probabilities in [0, 1], the others real.
    valid (B, T) bool leaves padding out.  A clip without a valid second gets a meaningless finite value.
    HAN, attentive MMIL pooling; the clip's audio and visual probability use the weights A only, as released.
    """
    if valid is not None:
        time_logits = time_logits.masked_fill(~valid[:, :, None, None], torch.finfo(time_logits.dtype).min)
    over_time = time_logits.softmax(dim=1)
    over_modality = modality_logits.softmax(dim=2)
    weighted = over_time * probabilities
    audio, visual = weighted.sum(dim=1).unbind(dim=1)
    return ClipProbabilities((weighted * over_modality).sum(dim=(1, 2)), audio, visual)


class AttentivePooling(nn.Module):
    """The two heads of MMIL pooling: one Linear for the seconds, one for the modalities."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.over_time = nn.Linear(width, classes)
        self.over_modality = nn.Linear(width, classes)

    def forward(self, features: Tensor, probabilities: Tensor, valid: Tensor | None = None) -> ClipProbabilities:
        """Features (B, T, 2, D) weigh the probabilities (B, T, 2, C); valid (B, T) bool or None."""
        return attentive_pooling(probabilities, self.over_time(features), self.over_modality(features), valid)
