"""One video file to one record: sampled frames, a waveform, presentation times; or the reason why not.

file     |--------- sound ---------------|           both on the file's clock
           |-- pictures -------------------|
clip     0         1         2         3             time zero: where the first of the two begins
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.audio import read_audio, read_whole_audio
from avvp_pipe.stages.media.dump import GRID_FPS, dumped_frames, timing_of
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.frames import RULES, centre_times, nearest_frames, picked, seen_in_time
from avvp_pipe.stages.media.probe import VideoIndex, check_file, index_video
from avvp_pipe.stages.media.resizes import DTYPES, RESIZES, squares
from avvp_pipe.stages.media.segments import CUTS
from avvp_pipe.stages.media.video import read_frames

__all__ = ["DecodedClip", "Sampling", "decode_clip", "decode_pictures"]

SHORT_SECONDS = 1.5
"""Video may end less than this before the asked length; YouTube's ten seconds are often 9.97."""
BROKEN_SECONDS = 0.5
"""A file whose packets end this much before the container says has been cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """What to take from a clip. Raises ValueError for names and numbers that make no sense."""

    frame_rule: str = "linspace"
    """A name in `frames.RULES`."""
    frames_per_second: int = 1
    """k: how many frames stand for a second."""
    frame_size: int = 224
    """S: pixels of the square frames' side."""
    resize: str = "stretch"
    """A name in `resizes.RESIZES`."""
    frame_dtype: str = "uint8"
    """A name in `resizes.DTYPES`: grey levels 0 to 255, rounded, or as `stretch` leaves them."""
    sample_rate: int = 48000
    audio_cut: str = "exact"
    """A name in `segments.CUTS`: sound of exactly the seconds asked, or the whole of the file's, as VALOR cut it."""

    def __post_init__(self) -> None:
        for what, name, known in (
            ("frame rule", self.frame_rule, RULES),
            ("resize", self.resize, RESIZES),
            ("frame dtype", self.frame_dtype, DTYPES),
            ("audio cut", self.audio_cut, CUTS),
        ):
            if name not in known:
                raise ValueError(f"no {what} {name!r}; there are {', '.join(known)}")
        if min(self.frames_per_second, self.frame_size, self.sample_rate) < 1:
            raise ValueError(
                f"wanted positive numbers, got {self.frames_per_second = }, {self.frame_size = }, {self.sample_rate = }"
            )


@dataclass(frozen=True, slots=True)
class DecodedClip:
    """T seconds of a clip, k frames each."""

    frames: NDArray[Any]
    """(T * k, S, S, 3) RGB, uint8 or float32, in grey levels 0 to 255; frame t * k + j is the j-th of second t."""
    frame_indices: NDArray[np.int32]
    """(T * k,) which frames of the file, counted as a player shows them."""
    frame_seconds: NDArray[np.float64]
    """(T * k,) presentation times, from the beginning of the clip."""
    audio: NDArray[np.float32]
    """(samples,) mono, finite. Cut `exact`: T * rate samples from the beginning of the clip. Cut `valor`: the file's
    sound from its own beginning, T to (T + 0.5) * rate samples. `segments.segment_bounds` cuts both into seconds."""
    padded_samples: int
    """How many of the samples are padding, because the file has no sound there; 0 with `valor`, which never pads."""
    duration_seconds: float
    """From the beginning of the clip to the end of its pictures."""


def decode_clip(path: Path, *, seconds: int, sampling: Sampling = Sampling()) -> DecodedClip:
    """Decode one clip to T = `seconds` segments. A slightly shorter video repeats its last frame.

    Raises ClipError with a status of the closed set, ValueError where `seconds` is not positive.
    """
    if seconds < 1:
        raise ValueError(f"a clip has one or more seconds, got {seconds = }")
    check_file(path)
    index = index_video(path)
    _check_length(index, path, seconds)
    audio, padded = _sound(path, index, seconds, sampling)
    chosen, frames = decode_pictures(path, index, seconds=seconds, sampling=sampling)
    return DecodedClip(
        frames=frames,
        frame_indices=chosen.astype(np.int32),
        frame_seconds=index.shown_seconds[chosen],
        audio=audio,
        padded_samples=padded,
        duration_seconds=index.duration_seconds,
    )


def decode_pictures(
    path: Path, index: VideoIndex, *, seconds: int, sampling: Sampling
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Which frames were chosen (T * k,), and they themselves (T * k, S, S, 3), without the sound. Raises ClipError."""
    chosen = _chosen(path, index, seconds, sampling)
    side, resize, dtype = sampling.frame_size, sampling.resize, sampling.frame_dtype
    return chosen, read_frames(path, index, chosen, lambda full: squares(full, side, resize, dtype))


def _sound(path: Path, index: VideoIndex, seconds: int, sampling: Sampling) -> tuple[NDArray[np.float32], int]:
    if sampling.audio_cut == "valor":
        return read_whole_audio(path, seconds=seconds, rate=sampling.sample_rate), 0
    return read_audio(path, seconds=seconds, rate=sampling.sample_rate, start_seconds=index.start_seconds)


def _chosen(path: Path, index: VideoIndex, seconds: int, sampling: Sampling) -> NDArray[np.intp]:
    """(T * k,) the frames that the rule takes, as indices into `index`."""
    shown, lasts, per_second = index.shown_seconds, index.duration_seconds, sampling.frames_per_second
    if sampling.frame_rule == "centre":
        return nearest_frames(centre_times(seconds, per_second), shown)
    old = sampling.frame_rule == "linspace"
    timing = timing_of(index.packets, path, old=old)
    seen = seen_in_time(shown, lasts, seconds)
    timing = replace(timing, ticks=timing.ticks[:seen], lasts=timing.lasts[:seen])
    return picked(dumped_frames(timing, old=old), lasts, seconds, per_second, GRID_FPS)


def _check_length(index: VideoIndex, path: Path, seconds: int) -> None:
    lasts = index.duration_seconds
    if lasts < seconds and index.missing_seconds > BROKEN_SECONDS:
        whole = lasts + index.missing_seconds
        raise ClipError(Status.CORRUPT, f"{path} breaks off after {lasts:.2f} of {whole:.2f} s; fetch it again")
    if lasts <= seconds - SHORT_SECONDS:
        raise ClipError(Status.TOO_SHORT, f"the video of {path} lasts {lasts:.2f} s, and {seconds} s are wanted")
