"""Small pictures of clips: one frame a second side by side, the spectrogram of the sound below, as one WebP.

    frames (T, H, W, 3), samples (K,) -> picture of T * side by side + BANDS_HIGH pixels

They come from stored media, else from the video files where they are at hand. How large and how fine they are is
chosen so that all of them fit the room there is; what does not fit is left out, and said so.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.report.records import Pictures
from avvp_pipe.pipeline.report.sources import Footage, Source
from avvp_pipe.stages.stage import Progress

__all__ = ["LADDER", "no_pictures", "pictures_of", "spectrogram", "strip"]

LADDER = ((112, 60), (96, 55), (80, 50), (64, 45), (56, 40), (48, 35), (40, 30), (32, 25))
"""Side of a frame in pixels and quality of WebP, the best first."""
SAMPLED = 12
"""Clips that are tried to choose from the ladder."""
BANDS, BANDS_HIGH = 32, 32
RANGE_DB = 60.0
LOWEST_HZ = 60.0
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Fit:
    side: int
    quality: int

    @property
    def words(self) -> str:
        return f"WebP, {self.side} pixels a second, quality {self.quality}"


def spectrogram(samples: NDArray[np.floating[Any]], rate: int, columns: int) -> Bytes:
    """How loud each pitch is over time: (BANDS, columns), high pitches first, 255 the loudest of the clip.

    Power in bands that widen with pitch, from LOWEST_HZ to half the rate, in decibels down to RANGE_DB below the
    loudest; all 0 for silence.
    """
    window = 1 << max(6, round(np.log2(rate * 0.03)))
    if not len(samples):
        return np.zeros((BANDS, columns), np.uint8)
    padded = np.pad(samples.astype(np.float32), window // 2)
    starts = np.linspace(0, len(samples) - 1, columns).astype(np.intp)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[starts] * np.hanning(window).astype(np.float32)
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
    edges = np.geomspace(LOWEST_HZ, rate / 2, BANDS + 1) / (rate / window)
    low = np.minimum(edges[:-1].astype(np.intp), power.shape[1] - 1)
    high = np.maximum(np.minimum(np.ceil(edges[1:]).astype(np.intp), power.shape[1]), low + 1)
    sums = np.concatenate([np.zeros((len(power), 1)), np.cumsum(power, axis=1)], axis=1)
    bands = (sums[:, high] - sums[:, low]) / (high - low)
    peak = bands.max()
    if not np.isfinite(peak) or peak <= 1e-9:
        return np.zeros((BANDS, columns), np.uint8)
    level = 10 * np.log10(np.maximum(bands / peak, 1e-12)) / RANGE_DB + 1
    return np.asarray(np.rint(255 * np.clip(level, 0, 1)).T[::-1], np.uint8)


def strip(footage: Footage, side: int, quality: int) -> bytes:
    """One picture of a clip as WebP."""
    from PIL import Image

    count = len(footage.frames)
    picture = Image.new("RGB", (count * side, side + BANDS_HIGH))
    for place, frame in enumerate(footage.frames):
        picture.paste(
            Image.fromarray(frame).resize((side, side), Image.Resampling.BOX, reducing_gap=2.0), (place * side, 0)
        )
    sound = Image.fromarray(spectrogram(footage.samples, footage.rate, count * side))
    picture.paste(sound.resize((count * side, BANDS_HIGH)).convert("RGB"), (0, side))
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def no_pictures(clips: int, reason: str) -> Pictures:
    """None at all, for one reason."""
    return Pictures((b"",) * clips, (reason,) * clips, "none")


def pictures_of(source: Source, *, room_bytes: int, progress: Progress) -> Pictures:
    """Pictures of all clips of a source that together take at most `room_bytes` as base64."""
    clips = len(source.reasons)
    there = [place for place in range(clips) if not source.reasons[place]]
    if not there:
        return Pictures((b"",) * clips, source.reasons, "none")
    fit = _fitting(source, there, room_bytes)
    strips, reasons, taken = [b""] * clips, list(source.reasons), 0
    for place, footage in progress.track(source.footage(there), total=len(there), label="pictures"):
        if isinstance(footage, str):
            reasons[place] = footage
            continue
        made = strip(footage, fit.side, fit.quality)
        size = 4 * -(-len(made) // 3)
        if taken + size > room_bytes:
            reasons[place] = "no room left in a file of this size (--max-bytes)"
            continue
        strips[place], taken = made, taken + size
    return Pictures(tuple(strips), tuple(reasons), fit.words)


def _fitting(source: Source, there: list[int], room_bytes: int) -> _Fit:
    """The best step of the ladder at which all clips are likely to fit, by a sample of them."""
    sample = [there[place] for place in np.unique(np.linspace(0, len(there) - 1, SAMPLED).astype(np.intp))]
    tried = [one for _, one in source.footage(sample) if not isinstance(one, str)]
    for side, quality in LADDER:
        if not tried:
            break
        mean = sum(len(strip(one, side, quality)) for one in tried) / len(tried)
        if 1.08 * mean * 4 / 3 * len(there) <= room_bytes:
            return _Fit(side, quality)
    return _Fit(*LADDER[-1])
