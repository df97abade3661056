"""UWAV's generator: a network that makes a teacher's per-second logits consistent over a clip.

    "UWAV: Uncertainty-weighted Weakly-supervised Audio-Visual Video Parsing", CVPR 2025, arXiv:2505.09615.
    Released code: github.com/Franklin905/UWAV at 15c9a8d ("init commit", 2025-06-06).

CLIP and CLAP see one second at a time.  The generator lets the seconds of a clip look at each other,
separately in each modality, and compares what comes out with the event names' text features::

    CLIP (B, T, 768) -> MLP -> transformer over T -> MLP -> g (B, T, 768) -> scale * g . text -> (B, T, C)

It is pre-trained on videos labelled second by second with events that are heard *and* seen, and then,
frozen, labels videos whose classes it has not met: those come in as text.

    paper        here                        shape
    x^a, x^v     audio, visual               (B, T, Da), (B, T, Dv)  CLAP and CLIP features, L2-normalised
    E^a, E^v     text_audio, text_visual     (C, Da), (C, Dv)        text features, L2-normalised
    G^a, G^v     `_Stream.forward`           (B, T, D)
    z^a, z^v     `TemporalGenerator.forward` (B, T, C)               logits
    L            `audio_visual_loss`         ()

Departures.  From the paper, as released, each with its switch in `Network`: MLPs around the transformer
(`projections`); logits are scaled by the teachers' *log* scale (`scales`).  In the loss, classes that occur
in a clip weigh 5 (`present_weight`; 1 is the paper's).
From the released code, without a switch since no number changes: the loss is computed from logits instead
of a rounded product of probabilities; padding is masked by booleans instead of -1e10, and left out where seconds
are taken one by one; outputs of padding differ, and mean nothing in either; the last layer and the comparison with text
are one product where that is less work.  The unused `pre_norm` flag is dropped.
Ours, off by default: `positions`, `attend="segment"` (the ablation that takes temporal context away),
`identical_layers=False` (the release starts all layers from the same values).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import Attend, EncoderLayer, attention_mask, one_of, stack, valid_mask
from avvp_pipe.stages.blocks.losses import log_of_both
from avvp_pipe.stages.blocks.packing import Packing, pack, packing_of
from avvp_pipe.stages.blocks.weights import renamed

__all__ = [
    "Network",
    "Positions",
    "Scales",
    "TemporalGenerator",
    "audio_visual_loss",
    "audio_visual_probability",
    "from_released",
]

Scales = Literal["log", "exp", "none"]
Positions = Literal["none", "sinusoidal"]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Network:
    """Sizes and switches of the generator; the defaults are the released ones (92,985,856 parameters)."""

    width: int = 1024
    """Of the transformer; with `projections=False` each modality keeps the width of its features."""
    heads: int = 16
    ffn: int = 2048
    layers: int = 5
    dropout: float = 0.3
    audio_width: int = 512
    """Da, of CLAP."""
    visual_width: int = 768
    """Dv, of CLIP."""
    audio_scale: float = 3.2912
    """The audio teacher's logit scale, as its logarithm."""
    visual_scale: float = 4.6052
    """The visual teacher's logit scale, as its logarithm: ln 100 for CLIP."""
    scales: Scales = "log"
    """What multiplies the logits: the logarithm itself (released), its "exp", or "none" (paper)."""
    projections: bool = True
    """MLPs before and after the transformer (released); without them, the paper's form."""
    positions: Positions = "none"
    """Whether the transformer knows the order of seconds; as released it does not."""
    attend: Attend = "video"
    """Whether a second sees the whole "video" or only its own "segment"."""
    identical_layers: bool = True
    """Whether all layers start from the same values, as released."""

    def __post_init__(self) -> None:
        one_of("scales", self.scales, Scales)
        one_of("positions", self.positions, Positions)
        one_of("attend", self.attend, Attend)
        sizes = (self.width, self.heads, self.ffn, self.layers, self.audio_width, self.visual_width)
        if min(sizes) < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"the generator's sizes are at least 1 and its dropout in [0, 1), but {self}")


class _Stream(nn.Module):
    """One modality: its features, made consistent over time, compared with text."""

    scale: Tensor

    def __init__(self, network: Network, *, features: int, scale: float) -> None:
        super().__init__()
        width = network.width if network.projections else features
        # A buffer, so that weights carry the scale they were trained with, as the released files do.
        self.register_buffer("scale", torch.tensor(scale))
        self.scales, self.positions = network.scales, network.positions
        self.enter = _perceptron(features, 2 * width, width) if network.projections else nn.Identity()
        self.layers = nn.ModuleList(
            stack(
                lambda: EncoderLayer(width, network.heads, network.ffn, network.dropout),
                network.layers,
                identical=network.identical_layers,
            )
        )
        self.leave = _perceptron(width, features, features) if network.projections else nn.Identity()

    def forward(self, features: Tensor, text: Tensor, mask: Tensor | None, packing: Packing | None) -> Tensor:
        """Features (B, T, D), text (C, D) -> logits (B, T, C); zero, with a packing, in padding."""
        stream: Tensor = self.enter(pack(features, packing))
        if self.positions == "sinusoidal":
            waves = _sinusoids(features.shape[1], stream.shape[-1]).to(stream)
            stream = stream + pack(waves.expand(len(features), -1, -1), packing)
        for layer in self.layers:
            stream = layer(stream, mask, packing)
        logits = self._compared(stream, text) * self.factor()
        return logits if packing is None else packing.spread(logits)

    def _compared(self, stream: Tensor, text: Tensor) -> Tensor:
        """Dot products of what the transformer gave, (..., D), with the texts (C, D'): (..., C), in 32 bits.

        The MLP's last layer is linear, as the comparison is. Where there are more seconds than classes the two are made
        one layer with C outputs, (W h + b) . text = (text W) . h + text . b, which spares a tenth of all products.
        """
        layers, bias = list(self.leave) if isinstance(self.leave, nn.Sequential) else [], None
        with torch.autocast(stream.device.type, enabled=False):  # logits of 8 bits would tie at thresholds
            if layers and stream.numel() > len(text) * stream.shape[-1]:
                last = layers.pop()
                assert isinstance(last, nn.Linear)
                text, bias = text @ last.weight.float(), text @ last.bias.float()
        for layer in layers:
            stream = layer(stream)
        with torch.autocast(stream.device.type, enabled=False):
            return functional.linear(stream.float(), text, bias)

    def factor(self) -> Tensor | float:
        """What cosines and dot products are multiplied by, as `Network.scales` says."""
        if self.scales == "none":
            return 1.0
        return self.scale if self.scales == "log" else self.scale.exp()


class TemporalGenerator(nn.Module):
    """Logits of every class in every second of a clip, heard and seen, from features and class names."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.audio = _Stream(network, features=network.audio_width, scale=network.audio_scale)
        self.visual = _Stream(network, features=network.visual_width, scale=network.visual_scale)

    def forward(
        self, audio: Tensor, visual: Tensor, text_audio: Tensor, text_visual: Tensor, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Audio and visual logits, (B, T, C) each.

        audio (B, T, Da), visual (B, T, Dv): L2-normalised features; what lies beyond lengths (B,) is padding,
        may be NaN, and comes out as zero.  text_audio (C, Da), text_visual (C, Dv): L2-normalised.
        """
        self._check(audio, visual, text_audio, text_visual, lengths)
        valid = valid_mask(lengths, audio.shape[1])
        mask = attention_mask(valid, attend=self.network.attend)
        packing = packing_of(valid)
        return self.audio(audio, text_audio, mask, packing), self.visual(visual, text_visual, mask, packing)

    def _check(self, audio: Tensor, visual: Tensor, text_audio: Tensor, text_visual: Tensor, lengths: Tensor) -> None:
        clips, classes = tuple(audio.shape[:2]), len(text_audio)
        came = [tuple(each.shape) for each in (audio, visual, text_audio, text_visual, lengths)]
        heard, seen = self.network.audio_width, self.network.visual_width
        if came != [(*clips, heard), (*clips, seen), (classes, heard), (classes, seen), clips[:1]]:
            raise ValueError(
                f"audio (B, T, {heard}), visual (B, T, {seen}), text_audio (C, {heard}), text_visual (C, {seen}) and "
                f"lengths (B,) belong together, but came as {', '.join(map(str, came))}; "
                "build the generator with the widths of the features"
            )


def audio_visual_probability(audio_logits: Tensor, visual_logits: Tensor) -> Tensor:
    """Probability that an event is heard and seen: the product of both, in [0, 1], any one shape."""
    return audio_logits.sigmoid() * visual_logits.sigmoid()


def audio_visual_loss(
    audio_logits: Tensor, visual_logits: Tensor, labels: Tensor, lengths: Tensor, *, present_weight: float = 5.0
) -> Tensor:
    """Binary cross-entropy of the product of both probabilities against audio-visual labels.

    L = sum_btc m[b,t] w[b,c] BCE(sigmoid(z_a) sigmoid(z_v), y) / (C sum m): m marks the seconds within lengths
    (B,), w is `present_weight` for classes that occur anywhere in the clip and 1 for the others.
    Logits and labels (B, T, C), labels bool or 0/1.  UWAV, released code; `present_weight=1` is the paper's.
    """
    valid = valid_mask(lengths, labels.shape[1])
    truth = labels.to(torch.bool)
    present = (truth & valid[:, :, None]).any(dim=1, keepdim=True).expand_as(truth)
    audio, visual = audio_logits[valid].float(), visual_logits[valid].float()
    log_both, log_not_both = log_of_both(audio, visual)
    entropy = -torch.where(truth[valid], log_both, log_not_both)
    return (entropy * torch.where(present[valid], present_weight, 1.0)).mean()


def from_released(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of a released `checkpoint_best.pt` (a state dict) to those of `TemporalGenerator`.

    Raises ValueError for names that the release does not have; `load_arrays` and `load_state_dict` then
    check that none is missing and that shapes fit.
    """
    return renamed(
        state,
        {
            theirs: ours
            for short, stream in (("a", "audio"), ("v", "visual"))
            for theirs, ours in (
                (f"{short}_logit_scale", f"{stream}.scale"),
                (f"proj_{short}.layers.0.", f"{stream}.enter.0."),
                (f"proj_{short}.layers.1.", f"{stream}.enter.2."),
                (f"{short}_transformer.encoder.layers.", f"{stream}.layers."),
                (f"final_proj_{short}.layers.0.", f"{stream}.leave.0."),
                (f"final_proj_{short}.layers.1.", f"{stream}.leave.2."),
            )
        },
    )


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _sinusoids(segments: int, width: int) -> Tensor:
    """Sines and cosines of the second's number at falling frequencies, (T, D) ("Attention Is All You Need")."""
    second = torch.arange(segments)[:, None]
    frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    waves = torch.stack(((second * frequency).sin(), (second * frequency).cos()), dim=2)
    return waves.flatten(1)[:, :width]
