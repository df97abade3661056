"""CoLeaF's reference: what one modality says by itself, and how its classes go together.  Only for training.

    CoLeaF (ECCV 2024), section 3.2, equations 5 to 7; released code at a36a153::

        class tokens (C, D) --+
                              +-- one attention layer --+-- of the tokens:  mean over D, sigmoid -> CLS   (B, C)
        seconds   (B, T, D) --+                         +-- of the seconds: features r_t    (B, T, D)
                                                                            classifier, sigmoid, learnt
                                                                            weights over time -> R      (B, C)

Code and paper.  The tokens stand before the seconds in the code and after them in the paper: with attention that
knows no places it is the same.  Dropout of one half precedes the classifier, and of the visual reference the
weights over time as well (code only).
Ours: clips may be shorter than the batch; the tokens are always looked at.
As released: the tokens start at zero, and a layer norm ends the layer.  As long as the norm's scale is one for
all features, the mean over D is the norm's mean shift, the same for all classes and whatever the tokens hold: the
tokens begin to learn from CLS once that scale has.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import EncoderLayer
from avvp_pipe.stages.parsers.coleaf_inputs import AudioIn, CoLeafNetwork, VisualIn, masked_streams, segment_masks
from avvp_pipe.stages.parsers.records import Streams

__all__ = ["Modality", "Reference", "Referred"]

Modality = Literal["audio", "visual"]


class Referred(NamedTuple):
    """What a reference says of a batch of clips."""

    video_probs: Tensor
    """R, (B, C) in [0, 1]."""
    class_probs: Tensor | None
    """CLS, (B, C) in (0, 1); None without class tokens."""
    features: Tensor
    """r_t, (B, T, D), before dropout; the anchor is compared with these."""
    logits: Tensor
    """(B, T, C), per second."""


class Reference(nn.Module):
    """The reference of one modality."""

    def __init__(self, network: CoLeafNetwork, modality: Modality) -> None:
        super().__init__()
        self.network = network
        self.modality = modality
        self.enter = AudioIn(network, elu=False) if modality == "audio" else VisualIn(network, elu=False)
        if network.class_tokens:
            self.class_tokens = nn.Parameter(torch.zeros(network.classes, network.width))
        self.layer = EncoderLayer(network.width, network.heads, network.ffn, network.dropout)
        self.drop = nn.Dropout(network.head_dropout)
        self.classifier = nn.Linear(network.width, network.classes)
        self.over_time = nn.Linear(network.width, network.classes)

    def forward(self, streams: Streams, lengths: Tensor | None = None) -> Referred:
        """Look at a batch of clips; streams and lengths as the parser's."""
        streams, valid = masked_streams(self.network, streams, lengths)
        seconds = self.enter(streams) if self.modality == "audio" else self.enter(streams, valid.shape[1])
        tokens = self.network.classes if self.network.class_tokens else 0
        if tokens:
            seconds = torch.cat((self.class_tokens.expand(len(seconds), -1, -1), seconds), dim=1)
        looked = self.layer(seconds, segment_masks(valid, tokens))
        features = looked[:, tokens:]
        classes = looked[:, :tokens].mean(dim=2).sigmoid() if tokens else None
        return self._pooled(features, classes, valid)

    def _pooled(self, features: Tensor, classes: Tensor | None, valid: Tensor) -> Referred:
        """Weigh the seconds' probabilities into the clip's, equation 7."""
        dropped = self.drop(features)
        logits: Tensor = self.classifier(dropped)
        times = self.over_time(dropped if self.modality == "visual" else features)
        weights = times.masked_fill(~valid[:, :, None], torch.finfo(times.dtype).min).softmax(dim=1)
        return Referred((weights * logits.sigmoid()).sum(dim=1), classes, features, logits)
