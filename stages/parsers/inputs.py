"""What comes into a parser: streams of features as one vector a second, and the first layers that read them.

    stream                                             one vector a second
    audio      (B, T, Da)                           -> (B, T, Da)
    audio_map  (B, 64, Da)  stretched over T seconds -> (B, T, Da)
    visual     (B, kT, Dv)  mean of k frames a second -> (B, T, Dv)
    motion     (B, T, Dm)                           -> (B, T, Dm)

Everything here is linear along time, so that it can be done before a Linear layer as well as after it, where HAN and
VALOR do it: the same but for rounding, on 8 times fewer rows of ResNet, and on 200 times fewer of CLAP's maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from avvp_pipe.stages.blocks.attention import one_of, valid_mask
from avvp_pipe.stages.parsers.records import Streams

__all__ = ["AudioProjection", "VisualFusion", "VisualInput", "audio_input", "map_seconds", "one_a_second"]

AudioProjection = Literal["mlp", "linear"]
VisualFusion = Literal["joint", "separate"]

BINS = 2
"""Bands of frequency in a feature map of CLAP (HTSAT's last layer); its rows are all of the first, then the second."""
FINE_STEPS = 1024
"""To which VALOR++ stretches the map's steps of time before it averages them into seconds."""


def one_a_second(streams: Streams, widths: Mapping[str, int], lengths: Tensor | None = None) -> dict[str, Tensor]:
    """Bring all streams to one row a second: audio, visual and, where wanted, motion -> (B, T, width) each.

    widths: stream -> width, of exactly the streams that are wanted; a map comes out as "audio". lengths (B,): seconds
    beyond are zero, whatever the streams hold there. T is that of audio, motion or visual, the first of them there is.
    Raises ValueError for streams that are missing, too many, of other widths, or of seconds that do not fit.
    """
    _check(streams, widths)
    leading = next(name for name in ("audio", "motion", "visual") if name in streams)
    segments = streams[leading].shape[1]
    seconds = {name: _frame_means(stream, segments, name) for name, stream in streams.items() if name != "audio_map"}
    if "audio_map" in streams:
        seconds["audio"] = map_seconds(streams["audio_map"], segments, lengths)
    if lengths is None:
        return seconds
    beyond = ~valid_mask(lengths, segments)[:, :, None]
    return {name: stream.masked_fill(beyond, 0) for name, stream in seconds.items()}


def map_seconds(audio_map: Tensor, segments: int, lengths: Tensor | None = None) -> Tensor:
    """Seconds of feature maps that CLAP made of whole clips: (B, 2 S, D) -> (B, T, D), T = `segments`.

    A map's rows are S steps of time in the lower band of frequency, then S in the upper one. VALOR++, released code:
    steps stretched to 1024 by bicubic interpolation, bands averaged, steps averaged into seconds; here as one weighted
    mean of the S steps for every second. lengths (B,): a map covers its clip, however long it is, so that one of a
    shorter clip gives so many seconds; None for all T.
    """
    batch, rows, width = audio_map.shape
    if rows < BINS or rows % BINS:
        raise ValueError(
            f"a feature map has rows for {BINS} bands of frequency, one after the other, but came with {rows} rows; "
            "VALOR++ reads CLAP's (64, 768)"
        )
    steps = audio_map.view(batch, BINS, rows // BINS, width).mean(dim=1)
    counts = [segments] * batch if lengths is None else [max(one, 1) for one in lengths.tolist()]
    weights = {count: _time_weights(rows // BINS, count, segments) for count in set(counts)}
    return torch.stack([weights[count] for count in counts]).to(steps) @ steps


def _time_weights(steps: int, seconds: int, segments: int) -> Tensor:
    """How much each step counts in each second: (T, S), rows that add up to one, then zero beyond the seconds."""
    each = torch.eye(steps)[:, None, None]  # as pictures of one row, in which one step is white
    fine = functional.interpolate(each, size=(1, FINE_STEPS), mode="bicubic", align_corners=False)
    weights = functional.adaptive_avg_pool1d(fine[:, 0], seconds)[:, 0].T
    return functional.pad(weights, (0, 0, 0, segments - seconds))


def _frame_means(stream: Tensor, segments: int, name: str) -> Tensor:
    rows = stream.shape[1]
    if rows == segments:
        return stream
    if name != "visual" or not segments or rows % segments:
        raise ValueError(
            f"streams cover the same seconds, visual with a multiple of as many frames, but {name} has {rows} rows "
            f"for {segments} seconds"
        )
    return stream.reshape(len(stream), segments, rows // segments, stream.shape[2]).mean(dim=2)


def _check(streams: Streams, widths: Mapping[str, int]) -> None:
    if streams.keys() != widths.keys():
        came = [f"{name} is missing" for name in widths if name not in streams]
        came += [f"{name} came" for name in streams if name not in widths]
        raise ValueError(
            f"this parser reads {', '.join(widths)}, but {', '.join(came)}; build it for the streams of the features"
        )
    shapes = {name: tuple(stream.shape) for name, stream in streams.items()}
    clips = {shape[0] for shape in shapes.values()}
    if any(len(shape) != 3 for shape in shapes.values()) or len(clips) > 1:
        raise ValueError(f"streams are (clips, rows, width) of the same clips, but came as {shapes}")
    wrong = {name: shape[2] for name, shape in shapes.items() if shape[2] != widths[name]}
    if wrong:
        wanted = {name: widths[name] for name in wrong}
        raise ValueError(f"this parser reads streams of widths {wanted}, but got {wrong}; build it with theirs")


def audio_input(form: AudioProjection, audio_width: int, width: int) -> nn.Module:
    """What reads a second of audio: one Linear (HAN, VALOR), or two with twice the width between them (UWAV)."""
    one_of("audio_projection", form, AudioProjection)
    if form == "linear":
        return nn.Linear(audio_width, width)
    return nn.Sequential(nn.Linear(audio_width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


class VisualInput(nn.Module):
    """What reads a second of pictures, and of motion where there is any.

    joint: both side by side into one Linear (UWAV). separate: a Linear for each, and one for both (HAN, VALOR).
    """

    def __init__(self, form: VisualFusion, visual_width: int, motion_width: int, width: int) -> None:
        super().__init__()
        one_of("visual_fusion", form, VisualFusion)
        if form == "separate" and not motion_width:
            raise ValueError("visual_fusion='separate' fuses two streams, but motion_width is 0; take 'joint'")
        separate = form == "separate"
        self.picture = nn.Linear(visual_width, width) if separate else nn.Identity()
        self.motion = nn.Linear(motion_width, width) if separate else nn.Identity()
        self.fusion = nn.Linear(2 * width if separate else visual_width + motion_width, width)

    def forward(self, visual: Tensor, motion: Tensor | None = None) -> Tensor:
        """(B, T, Dv) and (B, T, Dm) or None -> (B, T, D)."""
        parts = (self.picture(visual),) if motion is None else (self.picture(visual), self.motion(motion))
        out: Tensor = self.fusion(torch.cat(parts, dim=2))
        return out
