"""UWAV's parser: the hybrid attention network (HAN) in the sizes and form that UWAV released.

    HAN: "Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing", ECCV 2020,
    arXiv:2007.10558.  Released code of this form: github.com/Franklin905/UWAV at 15c9a8d.

A parser reads the features of a clip and says, for every second, which events are heard and which are seen::

    audio  (B, T, .) -> MLP    --+                      +-> audio features  --+-- classifier -> logits (B, T, C)
                                 +-> HAN layers over T --+                    |
    visual (B, T, .) -> Linear --+                      +-> visual features --+-- pooling    -> clip (B, C)

    paper      here                                                shape
    F^a, F^v   audio_features, visual_features                     (B, T, D)
    P          sigmoid of audio_logits, visual_logits              (B, T, C)
    p, p^a, p^v  video_probs, audio_video_probs, visual_video_probs  (B, C)
    W_p        classifier, shared by both modalities               D -> C
    W_t, W_m   pooling.over_time, pooling.over_modality            D -> C

Departures.  As released and unlike the paper, with switches in `Network`: the visual stream looks at the
already *updated* audio (`order`).  AVVP-ECCV20's stacking, in which only the last layer counts, is
`stacking="legacy"`.
Ours: clips may be shorter than the batch (`lengths`); `inputs="clip_clap"` has one Linear for CLIP features,
because the configuration behind UWAV's CLIP + CLAP rows is unknown and the released code cannot run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import (
    HanEncoder,
    HanLayer,
    Norm,
    Order,
    Stacking,
    attention_mask,
    one_of,
    stack,
    valid_mask,
)
from avvp_pipe.stages.blocks.pooling import AttentivePooling, ClipProbabilities
from avvp_pipe.stages.blocks.weights import renamed

__all__ = ["Gate", "Han", "Inputs", "Network", "Outputs", "from_released", "predict"]

Inputs = Literal["classic", "clip_clap"]
Gate = Literal["global", "modality", "none"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Network:
    """Sizes and switches of the parser; the defaults are the released ones (23,023,691 parameters)."""

    classes: int = 25
    width: int = 512
    heads: int = 16
    ffn: int = 2048
    layers: int = 5
    dropout: float = 0.1
    inputs: Inputs = "classic"
    """"classic": VGGish, ResNet-152 and R(2+1)D; "clip_clap": the teachers' features."""
    audio_width: int = 128
    """Of VGGish; 512 for CLAP."""
    visual_width: int = 2048
    """Of ResNet-152; 768 for CLIP."""
    motion_width: int = 512
    """Of R(2+1)D; unused with "clip_clap"."""
    norm: Norm = "post"
    order: Order = "sequential"
    stacking: Stacking = "chained"
    identical_layers: bool = True
    """Whether all layers start from the same values, as released."""

    def __post_init__(self) -> None:
        one_of("inputs", self.inputs, Inputs)
        one_of("norm", self.norm, Norm)
        one_of("order", self.order, Order)
        one_of("stacking", self.stacking, Stacking)
        widths = (self.width, self.audio_width, self.visual_width, self.motion_width)
        if min(*widths, self.classes, self.heads, self.ffn, self.layers) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"the parser's sizes are at least 1 and its dropout in [0, 1), but {self}")


class Outputs(NamedTuple):
    """What the parser says of a batch of clips."""

    video_probs: Tensor
    """(B, C): the class occurs somewhere in the clip, heard or seen. At least 0, and at times a little over 1:
    the weights over time and over modality are made apart, and their products need not add up to one."""
    audio_video_probs: Tensor
    """(B, C) in [0, 1]: somewhere in the clip, heard."""
    visual_video_probs: Tensor
    """(B, C) in [0, 1]: somewhere in the clip, seen."""
    audio_logits: Tensor
    """(B, T, C), per second, heard."""
    visual_logits: Tensor
    """(B, T, C), per second, seen."""
    audio_features: Tensor
    """(B, T, D), after attention, what `Han.classifier` reads; mixup blends these."""
    visual_features: Tensor
    """(B, T, D)."""


class Han(nn.Module):
    """The parser."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        width = network.width
        visual = network.visual_width + (network.motion_width if network.inputs == "classic" else 0)
        self.audio_in = nn.Sequential(nn.Linear(network.audio_width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.visual_in = nn.Linear(visual, width)
        layers = stack(
            lambda: HanLayer(width, network.heads, network.ffn, network.dropout, norm=network.norm),
            network.layers,
            identical=network.identical_layers,
        )
        self.encoder = HanEncoder(layers, order=network.order, stacking=network.stacking)
        self.classifier = nn.Linear(width, network.classes)
        self.pooling = AttentivePooling(width, network.classes)

    def forward(
        self, audio: Tensor, visual: Tensor, motion: Tensor | None = None, *, lengths: Tensor | None = None
    ) -> Outputs:
        """Parse a batch of clips.

        "classic": audio (B, T, 128), visual (B, kT, 2048) with k frames a second (8 in LLP), motion (B, T, 512).
        "clip_clap": audio (B, T, Da), visual (B, T, Dv), no motion.
        lengths (B,), None for all T: what lies beyond is padding, may be NaN, and comes out meaningless but finite.
        """
        seen = self._visual(audio.shape[1], visual, motion)
        self._check(audio, seen)
        valid, mask = None, None
        if lengths is not None:
            valid = valid_mask(lengths, audio.shape[1])
            mask = attention_mask(valid)
            audio, seen = (each.masked_fill(~valid[:, :, None], 0) for each in (audio, seen))
        heard, seen = self.encoder(self.audio_in(audio), self.visual_in(seen), mask)
        features = torch.stack((heard, seen), dim=2)
        logits: Tensor = self.classifier(features)
        pooled: ClipProbabilities = self.pooling(features, logits.sigmoid(), valid)
        return Outputs(*pooled, logits[:, :, 0], logits[:, :, 1], heard, seen)

    def _visual(self, segments: int, visual: Tensor, motion: Tensor | None) -> Tensor:
        """One visual vector a second: with "classic", the mean of its frames and the motion side by side."""
        if (motion is not None) != (self.network.inputs == "classic"):
            raise ValueError(
                f"a parser with inputs={self.network.inputs!r} takes "
                f"{'visual and motion' if motion is None else 'visual'} features, but motion "
                f"{'is missing' if motion is None else 'came'}; build it with the inputs that the features have"
            )
        if motion is None:
            return visual
        if segments < 1 or visual.shape[1] % segments or motion.shape[1] != segments:
            raise ValueError(
                f"audio has {segments} seconds, so visual wants a multiple of that many frames and motion as many, "
                f"but {tuple(visual.shape) = }, {tuple(motion.shape) = }"
            )
        return torch.cat((visual.view(len(visual), segments, -1, visual.shape[2]).mean(dim=2), motion), dim=2)

    def _check(self, audio: Tensor, visual: Tensor) -> None:
        wanted = (self.network.audio_width, self.visual_in.in_features)
        if audio.ndim != 3 or audio.shape[:2] != visual.shape[:2] or (audio.shape[2], visual.shape[2]) != wanted:
            raise ValueError(
                f"audio and visual features cover the same clips and seconds and are {wanted[0]} and {wanted[1]} "
                f"wide, but came as {tuple(audio.shape)} and {tuple(visual.shape)}; "
                "build the parser with the widths of the features"
            )


def predict(
    outputs: Outputs, *, gate: Gate = "global", gate_threshold: float = 0.5, threshold: float = 0.5, strict: bool = True
) -> tuple[Tensor, Tensor]:
    """Decide which classes are heard and which are seen in each second: audio, visual, (B, T, C) bool each.

    A class is on where its probability passes `threshold` and the clip's passes `gate_threshold`.  Which of
    the clip's: gate="global" the pooled one for both modalities (HAN, VALOR, UWAV), "modality" each its own
    (JoMoLD, LSLD, CoLeaF), "none" no gate.  strict: > as UWAV; otherwise >= as HAN and VALOR.
    UWAV, released code, with the defaults.
    """
    one_of("gate", gate, Gate)
    passes = torch.gt if strict else torch.ge
    gates = {
        "global": (outputs.video_probs, outputs.video_probs),
        "modality": (outputs.audio_video_probs, outputs.visual_video_probs),
        "none": (None, None),
    }[gate]
    audio, visual = (
        on if clip is None else on & passes(clip, gate_threshold)[:, None]
        for clip, on in (
            (gates[0], passes(outputs.audio_logits.sigmoid(), threshold)),
            (gates[1], passes(outputs.visual_logits.sigmoid(), threshold)),
        )
    )
    return audio, visual


def from_released(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of UWAV's released `checkpoint_best.pt` (a state dict) to those of `Han`.

    Raises ValueError for names that the release does not have; `load_arrays` and `load_state_dict` then
    check that none is missing and that shapes fit.
    """
    return renamed(
        state,
        {
            "fc_prob.": "classifier.",
            "fc_frame_att.layers.0.": "pooling.over_time.",
            "fc_av_att.layers.0.": "pooling.over_modality.",
            "fc_a.layers.0.": "audio_in.0.",
            "fc_a.layers.1.": "audio_in.2.",
            "fc_fusion.layers.0.": "visual_in.",
            "hat_encoder.": "encoder.",
        },
    )
