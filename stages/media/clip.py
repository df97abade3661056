"""One video file to one record: sampled frames, a waveform, presentation times; or the reason why not.

file     |--------- sound ---------------|           both on the file's clock
           |-- pictures -------------------|
clip     0         1         2         3             time zero: where the first of the two begins
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.audio import read_audio
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.frames import RESIZES, RULES, nearest_frames
from avvp_pipe.stages.media.probe import VideoIndex, check_file, index_video
from avvp_pipe.stages.media.video import read_frames

__all__ = ["DecodedClip", "Sampling", "decode_clip"]

SHORT_SECONDS = 1.5
"""Video may end less than this before the asked length; YouTube's ten seconds are often 9.97."""
BROKEN_SECONDS = 0.5
"""A file whose packets end this much before the container says has been cut off."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """What to take from a clip. Raises ValueError for names and numbers that make no sense."""

    frame_rule: str = "linspace"
    """A name in `frames.RULES`."""
    frame_size: int = 224
    """Pixels of the square frames' side."""
    resize: str = "stretch"
    """A name in `frames.RESIZES`."""
    sample_rate: int = 48000

    def __post_init__(self) -> None:
        for what, name, known in (("frame rule", self.frame_rule, RULES), ("resize", self.resize, RESIZES)):
            if name not in known:
                raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
        if self.frame_size < 1 or self.sample_rate < 1:
            raise ValueError(f"wanted a positive size and rate, got {self.frame_size = }, {self.sample_rate = }")


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """T seconds of a clip."""

    frames: NDArray[np.uint8]
    """(T, S, S, 3) RGB."""
    frame_indices: NDArray[np.int32]
    """(T,) which frames of the file, counted as a player shows them."""
    frame_seconds: NDArray[np.float64]
    """(T,) presentation times, from the beginning of the clip."""
    audio: NDArray[np.float32]
    """(T * rate,) mono, finite."""
    padded_samples: int
    """How many of the samples are padding, because the file has no sound there."""
    duration_seconds: float
    """From the beginning of the clip to the end of its pictures."""


def decode_clip(path: Path, *, seconds: int, sampling: Sampling = Sampling()) -> DecodedClip:
    """Decode one clip to `seconds` segments. A slightly shorter video repeats its last frame; missing sound is zeros.

    Raises ClipError with a status of the closed set, ValueError where `seconds` is not positive.
    """
    if seconds < 1:
        raise ValueError(f"a clip has one or more seconds, got {seconds = }")
    check_file(path)
    index = index_video(path)
    _check_length(index, path, seconds)
    audio, padded = read_audio(path, seconds=seconds, rate=sampling.sample_rate, start_seconds=index.start_seconds)
    shown = index.shown_seconds
    chosen = nearest_frames(RULES[sampling.frame_rule](index.duration_seconds, seconds), shown)
    frames = read_frames(path, index, chosen, lambda full: RESIZES[sampling.resize](full, sampling.frame_size))
    return DecodedClip(
        frames=frames,
        frame_indices=chosen.astype(np.int32),
        frame_seconds=shown[chosen],
        audio=audio,
        padded_samples=padded,
        duration_seconds=index.duration_seconds,
    )


def _check_length(index: VideoIndex, path: Path, seconds: int) -> None:
    lasts = index.duration_seconds
    if lasts < seconds and index.missing_seconds > BROKEN_SECONDS:
        whole = lasts + index.missing_seconds
        raise ClipError(Status.CORRUPT, f"{path} breaks off after {lasts:.2f} of {whole:.2f} s; fetch it again")
    if lasts <= seconds - SHORT_SECONDS:
        raise ClipError(Status.TOO_SHORT, f"the video of {path} lasts {lasts:.2f} s, and {seconds} s are wanted")
