"""Decoded clips put together to units: the arrays of a `media` artifact, a few rows at a time."""

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.clips.units import UNIT_CLIPS, Unit
from avvp_pipe.stages.media.clip import DecodedClip, Sampling
from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.pool import Task, decode_clips
from avvp_pipe.stages.media.quantise import as_int16
from avvp_pipe.store import Failure

__all__ = ["Clips", "Decoding", "audio_width", "media_columns", "media_units", "worker_count"]

AHEAD_CLIPS = 3 * UNIT_CLIPS
"""Clips that are decoded before they are asked for, so that decoding goes on while a model computes."""


@dataclass(frozen=True, slots=True)
class Clips:
    """N clips of a dataset, or of one part of it."""

    names: tuple[str, ...]
    paths: Sequence[Path]
    lengths: NDArray[np.int32]
    """(N,) seconds of each."""
    segments: int
    """T, of the whole dataset."""
    wanted: NDArray[np.bool_]
    """(N,) which to decode; the others come back as PENDING, with nothing in their arrays."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How clips are decoded; none of it changes what comes out of a sound file."""

    workers: int
    timeout_seconds: float
    memory_bytes: int = 0
    """Of one decoding process; 0: no limit."""


def worker_count(text: str, *, spare: int = 0) -> int:
    """Decoding processes for `auto` (the processors this process may use, less `spare`, at least one) or a number."""
    return max(len(os.sched_getaffinity(0)) - spare, 1) if text == "auto" else int(text)


def audio_width(sampling: Sampling, segments: int) -> int:
    """Samples that the longest clip may have."""
    slack = sampling.sample_rate // 2 if sampling.audio_cut == "valor" else 0
    return segments * sampling.sample_rate + slack


def media_columns(sampling: Sampling, segments: int, audio_dtype: str) -> dict[str, tuple[tuple[int, ...], str, float]]:
    """The arrays of media: name -> shape of one clip's row, dtype, and what stands where nothing was decoded."""
    side, frames = sampling.frame_size, segments * sampling.frames_per_second
    return {
        "frames": ((frames, side, side, 3), sampling.frame_dtype, 0),
        "frame_indices": ((frames,), "int32", -1),
        "frame_seconds": ((frames,), "float64", float("nan")),
        "audio": ((audio_width(sampling, segments),), audio_dtype, 0),
        "audio_samples": ((), "int32", 0),
        "padded_samples": ((), "int32", 0),
        "status": ((), "uint8", Status.PENDING),
    }


def media_units(
    clips: Clips, units: Sequence[slice], sampling: Sampling, decoding: Decoding, *, audio_dtype: str = "float32"
) -> Generator[Unit]:
    """Decode the wanted clips of these units; a clip that fails has its status and its failure, and zeros."""
    columns = media_columns(sampling, clips.segments, audio_dtype)
    rows = [row for unit in units for row in range(unit.start, unit.stop) if clips.wanted[row]]
    tasks = [Task(row, clips.paths[row], int(clips.lengths[row])) for row in rows]
    decoded = decode_clips(
        tasks,
        sampling,
        workers=decoding.workers,
        timeout_seconds=decoding.timeout_seconds,
        memory_bytes=decoding.memory_bytes,
        ahead=AHEAD_CLIPS,
    )
    for unit in units:
        count = unit.stop - unit.start
        arrays = {name: _filled((count, *shape), dtype, fill) for name, (shape, dtype, fill) in columns.items()}
        failures = []
        for row in (row for row in range(unit.start, unit.stop) if clips.wanted[row]):
            task, clip = next(decoded)
            assert task.row == row, f"clip {task.row} came where {row} was due"
            if isinstance(clip, ClipError):
                arrays["status"][row - unit.start] = clip.status
                # Without the folder: records are published, and the same wherever the videos lie.
                message = clip.message.replace(f"{task.path.parent}/", "")
                failures.append(Failure(clips.names[row], clip.code, message))
            else:
                _place(arrays, row - unit.start, clip)
        yield Unit(unit, arrays, tuple(failures))


def _filled(shape: tuple[int, ...], dtype: str, fill: float) -> NDArray[Any]:
    """An array that holds `fill`. One of zeros takes memory where it is written to only: long clips are few."""
    return np.full(shape, fill, dtype) if fill else np.zeros(shape, dtype)


def _place(arrays: dict[str, NDArray[Any]], place: int, clip: DecodedClip) -> None:
    frames = len(clip.frames)
    arrays["frames"][place, :frames] = clip.frames
    arrays["frame_indices"][place, :frames] = clip.frame_indices
    arrays["frame_seconds"][place, :frames] = clip.frame_seconds
    audio = as_int16(clip.audio) if arrays["audio"].dtype == np.int16 else clip.audio
    arrays["audio"][place, : len(audio)] = audio
    arrays["audio_samples"][place] = len(audio)
    arrays["padded_samples"][place] = clip.padded_samples
    arrays["status"][place] = Status.OK
