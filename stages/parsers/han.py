"""The hybrid attention network (HAN) with attentive pooling (MMIL): the parser of which most others are made.

    HAN: "Unified Multisensory Perception: Weakly-Supervised Audio-Visual Video Parsing", ECCV 2020,
    arXiv:2007.10558.  Released code: github.com/YapengTian/AVVP-ECCV20 at fde5611.

A parser reads the features of a clip and says, for every second, which events are heard and which are seen::

    audio  (B, T, .) -> Linear(s) --+                       +-> audio features  --+-- classifier -> logits (B, T, C)
                                    +-> HAN layers over T --+                     |
    visual, motion   -> fusion    --+                       +-> visual features --+-- pooling    -> clip (B, C)

    paper      here                                                shape
    F^a, F^v   audio_features, visual_features                     (B, T, D)
    P          sigmoid of audio_logits, visual_logits              (B, T, C)
    p, p^a, p^v  video_probs, audio_video_probs, visual_video_probs  (B, C)
    W_p        classifier, shared by both modalities               D -> C
    W_t, W_m   pooling.over_time, pooling.over_modality            D -> C

The parsers of VALOR and UWAV are this network in other sizes and with other switches: `valor.py`, `uwav.py`.
The defaults of `Network` are UWAV's, which is the largest; `METHOD` at the foot is HAN as first published.

Departures.  `stacking="legacy"` is that of the release, in which every layer reads the encoder's inputs again, so that
of several layers only the last counts; `METHOD` has one layer and does not need it.  The release also holds three
encoders that it never runs (4.7 of 9.3 million parameters); they are left out here.
Ours: clips may be shorter than the batch (`lengths`), and frames may come as means of seconds (`inputs.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
from avvp_pipe.stages.parsers.inputs import AudioProjection, VisualFusion, VisualInput, audio_input, one_a_second
from avvp_pipe.stages.parsers.records import Gate, GateSettings, Outputs, ParserMethod, Streams

__all__ = ["METHOD", "Gate", "Han", "Network", "Outputs", "predict"]

AudioStream = Literal["audio", "audio_map"]
Head = Literal["linear", "ffn"]


@dataclass(frozen=True, slots=True)
class Network:
    """Sizes and switches of the parser; the defaults are those of UWAV's release (23,023,691 parameters)."""

    classes: int = 25
    width: int = 512
    heads: int = 16
    ffn: int = 2048
    layers: int = 5
    dropout: float = 0.1
    audio_stream: AudioStream = "audio"
    """Which stream is heard: one vector a second, or VALOR++'s maps of whole clips."""
    audio_projection: AudioProjection = "mlp"
    """What reads it: one Linear (HAN, VALOR), or two (UWAV)."""
    visual_fusion: VisualFusion = "joint"
    """How pictures and motion come together: side by side into one Linear (UWAV), or after one each (HAN, VALOR)."""
    audio_width: int = 128
    """Of VGGish; 512 for CLAP, 768 for its maps."""
    visual_width: int = 2048
    """Of ResNet-152; 768 for CLIP."""
    motion_width: int = 512
    """Of R(2+1)D; 0 where no motion is read."""
    norm: Norm = "post"
    order: Order = "sequential"
    """Whether vision looks at the already updated audio (VALOR and UWAV, released), or both at the old streams."""
    stacking: Stacking = "chained"
    identical_layers: bool = True
    """Whether all layers start from the same values, as released."""
    head: Head = "linear"
    """What says a second's classes: one Linear, or two with a ReLU between them (VALOR on AVE), `ffn` wide there."""

    def __post_init__(self) -> None:
        one_of("audio_stream", self.audio_stream, AudioStream)
        one_of("norm", self.norm, Norm)
        one_of("order", self.order, Order)
        one_of("stacking", self.stacking, Stacking)
        one_of("head", self.head, Head)
        sizes = (self.width, self.audio_width, self.visual_width, self.classes, self.heads, self.ffn, self.layers)
        if min(sizes) < 1 or self.motion_width < 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"the parser's sizes are at least 1, motion_width at least 0 and its dropout in [0, 1), but {self}"
            )

    def widths(self) -> dict[str, int]:
        """The streams that such a parser reads -> how wide they are."""
        motion = {"motion": self.motion_width} if self.motion_width else {}
        return {self.audio_stream: self.audio_width, "visual": self.visual_width, **motion}


def _classifier(network: Network) -> nn.Module:
    """D -> C, of both modalities."""
    if network.head == "linear":
        return nn.Linear(network.width, network.classes)
    return nn.Sequential(nn.Linear(network.width, network.ffn), nn.ReLU(), nn.Linear(network.ffn, network.classes))


class Han(nn.Module):
    """The parser."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        width = network.width
        self.audio_in = audio_input(network.audio_projection, network.audio_width, width)
        self.visual_in = VisualInput(network.visual_fusion, network.visual_width, network.motion_width, width)
        layers = stack(
            lambda: HanLayer(width, network.heads, network.ffn, network.dropout, norm=network.norm),
            network.layers,
            identical=network.identical_layers,
        )
        self.encoder = HanEncoder(layers, order=network.order, stacking=network.stacking)
        self.classifier = _classifier(network)
        self.pooling = AttentivePooling(width, network.classes)

    def forward(self, streams: Streams, lengths: Tensor | None = None) -> Outputs:
        """Parse a batch of clips.

        streams: those of `Network.widths`: audio (B, T, Da) or audio_map (B, 64, Da), visual (B, T, Dv) or k frames a
        second (B, kT, Dv), motion (B, T, Dm).
        lengths (B,), None for all T: what lies beyond is padding, may be NaN, and comes out meaningless but finite.
        Raises ValueError for streams that do not fit.
        """
        seconds = one_a_second(streams, self.network.widths(), lengths)
        valid, mask = None, None
        if lengths is not None:
            valid = valid_mask(lengths, seconds["audio"].shape[1])
            mask = attention_mask(valid)
        heard = self.audio_in(seconds["audio"])
        heard, seen = self.encoder(heard, self.visual_in(seconds["visual"], seconds.get("motion")), mask)
        features = torch.stack((heard, seen), dim=2)
        logits: Tensor = self.classifier(features)
        pooled: ClipProbabilities = self.pooling(features, logits.sigmoid(), valid)
        return Outputs(*pooled, logits[:, :, 0], logits[:, :, 1], heard, seen)


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


METHOD = ParserMethod(
    name="han",
    paper="HAN (ECCV 2020, arXiv:2007.10558)",
    network=Network(heads=1, ffn=512, layers=1, audio_projection="linear", visual_fusion="separate", order="symmetric"),
    build=Han,
    gate=GateSettings(strict=False),
    recipe={
        "targets": "weak",
        "video": "guided",
        "reweight": "none",
        "mixup": "none",
        "epochs": 40,
        "optimiser": "adam",
        "weight_decay": 0.0,
        "clip_norm": 0.0,
        "schedule": "step",
        "learning_rate": 3e-4,
        "step_every": 10,
        "step_factor": 0.1,
        "train_batch": 16,
        "ties": "last",
        "seed": 1,
    },
)
"""As the release trains it."""
