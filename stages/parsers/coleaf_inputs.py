"""What CoLeaF's three networks share: their sizes, and how the features of a clip become one vector a second.

    audio  (B, T, Da)                  -> Linear ------------------------------------------> (B, T, D)
    visual (B, kT, Dv)  -> Linear, mean of the k frames of a second --+-- side by side, Linear -> (B, T, D)
    motion (B, T, Dm)   -> Linear ------------------------------------+

Departures.  By default `visual` holds one vector a second, the mean of its frames, so that the released anchor's ELU
follows the mean instead of preceding it; the references have no ELU and are not affected.  `visual_rows="frames"` reads
the frames themselves, `native_visual`, as the release does, at eight times the memory and reading.  Without motion
(`motion_width=0`: CLIP features, say) the visual vector is its Linear alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.attention import attention_mask, one_of, valid_mask
from avvp_pipe.stages.parsers.records import Streams

__all__ = ["AnchorForm", "AudioIn", "CoLeafNetwork", "VisualIn", "masked_streams", "segment_masks"]

AnchorForm = Literal["cmpae", "han"]
VisualRows = Literal["seconds", "frames"]


@dataclass(frozen=True, slots=True)
class CoLeafNetwork:
    """Sizes and switches of the anchor and of both references; the defaults are the released ones."""

    classes: int = 25
    width: int = 512
    heads: int = 1
    ffn: int = 512
    layers: int = 1
    """Of the anchor; a reference has one."""
    dropout: float = 0.1
    """Within attention layers."""
    head_dropout: float = 0.5
    """Before the classifiers: of both references and, for visual features, of the anchor "cmpae"."""
    audio_width: int = 128
    """Of VGGish."""
    visual_width: int = 2048
    """Of ResNet-152."""
    motion_width: int = 512
    """Of R(2+1)D; 0 for no motion."""
    visual_rows: VisualRows = "seconds"
    """Which rows are seen: "seconds", the stream `visual`; "frames", `native_visual` (B, kT, Dv), as released."""
    anchor: AnchorForm = "cmpae"
    """"cmpae": evidence for presence and absence, as released; "han": one Linear classifier and MMIL pooling."""
    cross_share: float = 0.8
    """Of the anchor "cmpae": share of the features with cross-attention; the rest are those without."""
    test_share: float = 0.7
    """Of the anchor "cmpae", at test: share of what those mixed features say; the rest say those without."""
    class_tokens: bool = True
    """Whether the references have tokens for the classes (the paper's Table 4)."""

    def __post_init__(self) -> None:
        one_of("anchor", self.anchor, AnchorForm)
        one_of("visual_rows", self.visual_rows, VisualRows)
        sizes = (self.classes, self.width, self.heads, self.ffn, self.layers, self.audio_width, self.visual_width)
        shares = (self.cross_share, self.test_share)
        if min(sizes) < 1 or self.motion_width < 0 or min(shares) < 0 or max(shares) > 1:
            raise ValueError(
                f"CoLeaF's sizes are at least 1, its motion width at least 0, its shares in [0, 1]: {self}"
            )
        if not (0 <= self.dropout < 1 and 0 <= self.head_dropout < 1):
            raise ValueError(f"dropout is in [0, 1), but {self}")

    def widths(self) -> dict[str, int]:
        """The streams that such a parser reads -> how wide they are."""
        motion = {"motion": self.motion_width} if self.motion_width else {}
        return {"audio": self.audio_width, self.visual_stream: self.visual_width, **motion}

    @property
    def visual_stream(self) -> str:
        """The stream that is seen."""
        return "visual" if self.visual_rows == "seconds" else "native_visual"


class AudioIn(nn.Module):
    """(B, T, Da) -> (B, T, D)."""

    def __init__(self, network: CoLeafNetwork, *, elu: bool) -> None:
        super().__init__()
        self.project = _linear(network.audio_width, network.width, elu)

    def forward(self, streams: Streams) -> Tensor:
        """Project the stream "audio"."""
        out: Tensor = self.project(streams["audio"])
        return out


class VisualIn(nn.Module):
    """(B, kT, Dv) and (B, T, Dm) -> (B, T, D)."""

    def __init__(self, network: CoLeafNetwork, *, elu: bool) -> None:
        super().__init__()
        self.frames = _linear(network.visual_width, network.width, elu)
        if network.motion_width:
            self.motion = _linear(network.motion_width, network.width, elu)
            self.fuse = _linear(2 * network.width, network.width, elu)

    def forward(self, streams: Streams, segments: int) -> Tensor:
        """Project the streams "visual" and "motion" to `segments` seconds."""
        frames: Tensor = self.frames(streams["visual"])
        seen = frames.view(len(frames), segments, -1, frames.shape[2]).mean(dim=2)
        if not hasattr(self, "motion"):
            return seen
        out: Tensor = self.fuse(torch.cat((seen, self.motion(streams["motion"])), dim=2))
        return out


def _linear(source: int, target: int, elu: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(source, target), nn.ELU()) if elu else nn.Linear(source, target)


def masked_streams(
    network: CoLeafNetwork, streams: Streams, lengths: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    """The streams that CoLeaF reads, zero in the padding, and which seconds are real: (B, T) bool.
    What is seen is called "visual", whichever stream it was.

    Raises ValueError where streams are missing or do not fit the network or one another.
    """
    wanted, seen = network.widths(), network.visual_stream
    shapes = {name: tuple(stream.shape) for name, stream in streams.items()}
    if not all(name in streams and streams[name].ndim == 3 for name in wanted):
        raise ValueError(f"CoLeaF reads {', '.join(wanted)}, (B, rows, width) each, but {shapes} came")
    clips, segments = shapes["audio"][:2]
    for name, width in wanted.items():
        rows = shapes[name][1]
        whole = segments and rows >= segments and rows % segments == 0 if name == seen else rows == segments
        if shapes[name][0] != clips or shapes[name][2] != width or not whole:
            raise ValueError(
                f"{name} wants {clips} clips of {segments} seconds and width {width} ({seen}: a multiple of that many "
                f"frames), but {shapes} came; build the parser with the widths of the features"
            )
    named = {("visual" if name == seen else name): streams[name] for name in wanted}
    if lengths is None:
        return named, streams["audio"].new_ones(clips, segments, dtype=torch.bool)
    valid = valid_mask(lengths, segments)
    return {name: _zero_beyond(stream, valid) for name, stream in named.items()}, valid


def _zero_beyond(stream: Tensor, valid: Tensor) -> Tensor:
    rows = valid.repeat_interleave(stream.shape[1] // valid.shape[1], dim=1)
    return stream.masked_fill(~rows[:, :, None], 0)


def segment_masks(valid: Tensor, tokens: int = 0) -> Tensor | None:
    """Who may look at whom among `tokens` class tokens, always real, and the seconds after them."""
    real = torch.cat((valid.new_ones(len(valid), tokens), valid), dim=1)
    return attention_mask(real)
