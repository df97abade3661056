"""CoLeaF's anchor: the branch that looks at both modalities, and the only one that is needed once it is trained.

    CMPAE: "Collecting Cross-Modal Presence-Absence Evidence for Weakly-Supervised Audio-Visual Event Perception",
    CVPR 2023, the anchor of CoLeaF's release (a36a153) and tables; HAN: ECCV 2020, arXiv:2007.10558 (Table 5)::

        audio  (B, T, D) --+-- layers that look at both modalities --+
        visual (B, T, D) --+                                         +-- 0.8 and 0.2 of them: features f_t (B, T, D)
                           +-- the same layers without the other   --+      |
                           |                                                +-- head: seconds (B, T, C), clip (B, C)
                           +-- "cmpae": global branch, clip (B, C)

Layers are HAN's, post-norm, both streams read each other's old state, and one chain feeds the next.
Head "cmpae": for each class two evidences, one for presence (a Linear) and one for absence (a Linear on what
both modalities say); their difference is the logit of a second.  Weights over time are applied to these two
evidences instead of probabilities, and their sums are the clip's evidence.  The clip's global probability comes
from the projected features before any attention, averaged over seconds.
At test, "cmpae" gives 0.7 of what these features say and 0.3 of what those without cross-attention say.

Departures.  The release also holds a head for the global probability (`fc_global`), class tokens and norms in
the anchor that it never runs; they are left out.  The anchor "han" of Table 5 is not released: HAN as its paper has it,
without ELU, mixing and dropout of visual features.
Ours: clips may be shorter than the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import HanLayer, stack
from avvp_pipe.stages.blocks.pooling import AttentivePooling, ClipProbabilities
from avvp_pipe.stages.parsers.coleaf_inputs import AudioIn, CoLeafNetwork, VisualIn, masked_streams, segment_masks
from avvp_pipe.stages.parsers.coleaf_losses import evidence, evidence_logits, global_uncertainty
from avvp_pipe.stages.parsers.records import Outputs, Streams

__all__ = ["Anchor", "Anchored", "CmpaeHead", "HanHead", "Uncertainties"]

_SLOPE, _BETWEEN = 0.2, 0.2
"""Of the LeakyReLU of the head "cmpae", and its dropout between modalities."""

Pair = tuple[Tensor, Tensor]
"""Of audio and of visual."""


class Uncertainties(NamedTuple):
    """How unsure the head "cmpae" is of a clip, in (0, 1)."""

    video: Tensor
    """(B,)."""
    audio: Tensor
    """(B, C)."""
    visual: Tensor
    """(B, C)."""


class Anchored(NamedTuple):
    """What the anchor says of a batch of clips."""

    outputs: Outputs
    """Its features are those before dropout."""
    uncertainties: Uncertainties | None
    """None with the head "han"."""


class HanHead(nn.Module):
    """One Linear classifier for both modalities, MMIL pooling."""

    def __init__(self, network: CoLeafNetwork) -> None:
        super().__init__()
        self.classifier = nn.Linear(network.width, network.classes)
        self.pooling = AttentivePooling(network.width, network.classes)

    def forward(self, projected: Pair, features: Pair, valid: Tensor) -> Anchored:
        """Features (B, T, D) of both modalities -> what they say; `projected` is not read."""
        both = torch.stack(features, dim=2)
        logits: Tensor = self.classifier(both)
        pooled: ClipProbabilities = self.pooling(both, logits.sigmoid(), valid)
        heard, seen = logits.unbind(dim=2)
        return Anchored(Outputs(*pooled, heard, seen, *features), None)


class CmpaeHead(nn.Module):
    """Evidence for presence and absence of each class, and a global branch."""

    def __init__(self, network: CoLeafNetwork) -> None:
        super().__init__()
        width, classes = network.width, network.classes
        self.drop = nn.Dropout(network.head_dropout)
        self.presence = nn.Linear(width, classes)
        self.absence = nn.Linear(width, classes)
        self.to_audio, self.to_visual = (
            nn.Sequential(nn.Linear(width, width), nn.Dropout(_BETWEEN), nn.LeakyReLU(_SLOPE)) for _ in range(2)
        )
        self.over_time = nn.Linear(width, 2 * classes)
        self.embed = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(_SLOPE))
        self.globally = nn.Linear(width, classes)

    def forward(self, projected: Pair, features: Pair, valid: Tensor) -> Anchored:
        """Projected features, for the global branch, and features after attention -> what they say."""
        heard, seen = features[0], self.drop(features[1])
        found = self.evidences((heard, seen))
        times = self.over_time(torch.stack((heard, seen), dim=2)).unflatten(3, (-1, 2))
        lowest = torch.finfo(times.dtype).min
        weights = times.masked_fill(~valid[:, :, None, None, None], lowest).softmax(dim=1)
        clips, unsure = (each.unbind(dim=1) for each in evidence((weights * found).sum(dim=1)))
        video, video_unsure = self._global(projected, valid)
        logits = evidence_logits(found).unbind(dim=2)
        outputs = Outputs(video, clips[0], clips[1], logits[0], logits[1], *features)
        return Anchored(outputs, Uncertainties(video_unsure, unsure[0], unsure[1]))

    def evidences(self, features: Pair) -> Tensor:
        """(B, T, D) of both modalities -> (B, T, 2, C, 2): audio, visual; presence, absence."""
        heard, seen = features
        present = self.presence(torch.stack(features, dim=2))
        together = heard + seen
        absent = torch.stack(
            (self.absence(heard + self.to_audio(together)), self.absence(seen + self.to_visual(together))), dim=2
        )
        return torch.stack((present, absent), dim=-1)

    def _global(self, projected: Pair, valid: Tensor) -> tuple[Tensor, Tensor]:
        """The clip's probabilities (B, C) and uncertainty (B,)."""
        logits: Tensor = self.globally(self.embed(projected[0]) + self.embed(projected[1]))
        real = valid[:, :, None]
        count = real.sum(dim=1).clamp(min=1)
        probabilities, mean = (torch.where(real, each, 0.0).sum(dim=1) / count for each in (logits.sigmoid(), logits))
        return probabilities, global_uncertainty(mean)


class Anchor(nn.Module):
    """The anchor, of either form."""

    def __init__(self, network: CoLeafNetwork) -> None:
        super().__init__()
        self.network = network
        self.released = network.anchor == "cmpae"
        self.audio_in = AudioIn(network, elu=self.released)
        self.visual_in = VisualIn(network, elu=self.released)
        self.layers = nn.ModuleList(
            stack(
                lambda: HanLayer(network.width, network.heads, network.ffn, network.dropout),
                network.layers,
                identical=False,
            )
        )
        self.head = CmpaeHead(network) if self.released else HanHead(network)

    def forward(self, streams: Streams, lengths: Tensor | None = None, *, cross: bool = True) -> Anchored:
        """Parse a batch of clips; in eval mode as at test. cross: whether modalities look at each other."""
        streams, valid = masked_streams(self.network, streams, lengths)
        projected = self.audio_in(streams), self.visual_in(streams, valid.shape[1])
        mask = segment_masks(valid)
        if not cross:
            return self._say(projected, self._alone(projected, mask), valid)
        both = self._crossed(projected, mask)
        if not self.released:
            return self._say(projected, both, valid)
        alone, share = self._alone(projected, mask), self.network.cross_share
        mixed = share * both[0] + (1 - share) * alone[0], share * both[1] + (1 - share) * alone[1]
        said = self._say(projected, mixed, valid)
        if self.training:
            return said
        return said._replace(outputs=_fused(said.outputs, self._say(projected, alone, valid).outputs, self.network))

    def _say(self, projected: Pair, features: Pair, valid: Tensor) -> Anchored:
        out: Anchored = self.head(projected, features, valid)
        return out

    def _crossed(self, streams: Pair, mask: Tensor | None) -> Pair:
        audio, visual = streams
        for layer in self.layers:
            audio, visual = layer(audio, visual, mask), layer(visual, audio, mask)
        return audio, visual

    def _alone(self, streams: Pair, mask: Tensor | None) -> Pair:
        audio, visual = streams
        for layer in self.layers:
            assert isinstance(layer, HanLayer)
            audio, visual = without_other(layer, audio, mask), without_other(layer, visual, mask)
        return audio, visual


def without_other(layer: HanLayer, stream: Tensor, mask: Tensor | None = None) -> Tensor:
    """A post-norm HAN layer (B, T, D) -> (B, T, D) that looks at its own stream only; CMPAE, released code."""
    summed = layer.norm1(stream + layer.drop(layer.self_attn.over_itself(stream, mask)))
    hidden = functional.relu_(layer.drop(layer.linear1(summed)))  # as in `HanLayer`, whose dropout is in place
    out: Tensor = layer.norm2(summed + layer.drop(layer.linear2(hidden)))
    return out


def _fused(mixed: Outputs, alone: Outputs, network: CoLeafNetwork) -> Outputs:
    """Probabilities of both, `test_share` of the first; seconds go back to logits."""

    def blend(first: Tensor, second: Tensor) -> Tensor:
        return network.test_share * first + (1 - network.test_share) * second

    audio, visual = (
        blend(first.sigmoid(), second.sigmoid()).logit()
        for first, second in ((mixed.audio_logits, alone.audio_logits), (mixed.visual_logits, alone.visual_logits))
    )
    return mixed._replace(
        audio_video_probs=blend(mixed.audio_video_probs, alone.audio_video_probs),
        visual_video_probs=blend(mixed.visual_video_probs, alone.visual_video_probs),
        audio_logits=audio,
        visual_logits=visual,
    )
