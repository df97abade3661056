"""Stage `decode`: videos in, sampled frames and waveforms out, with presentation times and a status per clip.

    clip.mp4 -> frames (T, S, S, 3) uint8, one a second     audio (T * rate,) mono

Clips are decoded in worker processes that can be killed; a clip that cannot be decoded costs only itself.
Frames are stored resized and rounded to uint8 (VALOR resizes in floating point: at most half a grey level apart).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.digests import DigestMemory, combined_digest
from avvp_pipe.stages.media.quantise import as_int16
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import cache_folder

if TYPE_CHECKING:
    from avvp_pipe.stages.media import ClipError, DecodedClip, Task
    from avvp_pipe.store import Artifact, Builder


@dataclass(frozen=True, slots=True)
class Params:
    """What to take from each video."""

    frame_rule: Literal["linspace", "centre"] = option(
        "linspace", "Which frame stands for a second: VALOR's even spacing at 8 fps, or the second's centre."
    )
    frame_size: Annotated[int, Field(ge=16, le=1024)] = option(224, "Side of the stored square frames, in pixels.")
    resize: Literal["stretch", "crop"] = option(
        "stretch", "VALOR's stretch (bilinear, no antialias), or CLIP's own bicubic with centre crop."
    )
    sample_rate: Annotated[int, Field(ge=8000, le=96000)] = option(48000, "Samples a second of the stored audio.")
    audio_dtype: Literal["float32", "int16"] = option("float32", "How samples are stored; int16 takes half the room.")
    videos: str = outside_key("", "Folder that relative paths start from, if not the dataset's own.")
    workers: Annotated[int, Field(ge=0)] = outside_key(2, "Decoding processes; 0 decodes in this one.")
    timeout_seconds: Annotated[float, Field(gt=0)] = outside_key(60.0, "Time limit of one clip.")


def video_paths(dataset: "Artifact", videos: str) -> list[Path]:
    """Where each clip's file should be."""
    root = Path(videos) if videos else Path(dataset.attrs["location"])
    return [root / path for path in dataset.strings("paths")]


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over the bytes of all videos; a missing one counts as missing."""
    dataset = inputs["dataset"]
    memory = DigestMemory(cache_folder() / "digests.json")
    names = dataset.strings("video_ids")
    paths = video_paths(dataset, params.videos)
    digest = combined_digest((name, memory.digest(path)) for name, path in zip(names, paths, strict=True))
    memory.save()
    return {"videos": digest}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Decode what is pending and write it shard by shard."""
    from avvp_pipe.stages.media import Sampling, Task, decode_clips

    dataset = inputs["dataset"]
    lengths = dataset.array("lengths")
    _declare(out, clips=len(lengths), segments=int(lengths.max(initial=0)), params=params)
    out.put("video_ids", dataset.strings("video_ids"))
    out.put("lengths", lengths)
    out.describe(sample_rate=params.sample_rate, frame_size=params.frame_size)
    names, paths = dataset.strings("video_ids"), video_paths(dataset, params.videos)
    shards = list(out.pending())
    rows = [row for shard in shards for row in range(shard.start, shard.stop)]
    decoded = decode_clips(
        [Task(row, paths[row], int(lengths[row])) for row in rows],
        Sampling(params.frame_rule, params.frame_size, params.resize, params.sample_rate),
        workers=params.workers,
        timeout_seconds=params.timeout_seconds,
    )
    counted = progress.track(decoded, total=len(lengths), label="decode", done=len(lengths) - len(rows))
    for shard in shards:
        _write_shard(out, shard, counted, names, params, segments=int(lengths.max(initial=0)))


def _declare(out: "Builder", *, clips: int, segments: int, params: Params) -> None:
    side = params.frame_size
    out.declare("frames", (clips, segments, side, side, 3), "uint8")
    out.declare("frame_indices", (clips, segments), "int32", fill=-1)
    out.declare("frame_seconds", (clips, segments), "float64", fill=float("nan"))
    out.declare("audio", (clips, segments * params.sample_rate), params.audio_dtype)
    out.declare("padded_samples", (clips,), "int32")
    out.declare("status", (clips,), "uint8")


def _write_shard(
    out: "Builder",
    shard: slice,
    decoded: "Iterator[tuple[Task, DecodedClip | ClipError]]",
    names: tuple[str, ...],
    params: Params,
    *,
    segments: int,
) -> None:
    from avvp_pipe.stages.media import ClipError
    from avvp_pipe.store import Failure

    count, side = shard.stop - shard.start, params.frame_size
    arrays: dict[str, NDArray[Any]] = {
        "frames": np.zeros((count, segments, side, side, 3), np.uint8),
        "frame_indices": np.full((count, segments), -1, np.int32),
        "frame_seconds": np.full((count, segments), np.nan),
        "audio": np.zeros((count, segments * params.sample_rate), params.audio_dtype),
        "padded_samples": np.zeros(count, np.int32),
        "status": np.zeros(count, np.uint8),
    }
    failures = []
    for _ in range(count):
        task, clip = next(decoded)
        place = task.row - shard.start
        if isinstance(clip, ClipError):
            arrays["status"][place] = int(clip.status)
            failures.append(Failure(names[task.row], clip.code, clip.message))
        else:
            _place(arrays, place, clip, params)
    out.write(shard, arrays, failures=failures)


def _place(arrays: Mapping[str, NDArray[Any]], place: int, clip: "DecodedClip", params: Params) -> None:
    seconds = len(clip.frames)
    arrays["frames"][place, :seconds] = clip.frames
    arrays["frame_indices"][place, :seconds] = clip.frame_indices
    arrays["frame_seconds"][place, :seconds] = clip.frame_seconds
    audio = clip.audio if params.audio_dtype == "float32" else as_int16(clip.audio)
    arrays["audio"][place, : len(audio)] = audio
    arrays["padded_samples"][place] = clip.padded_samples
    arrays["status"][place] = 1


STAGE = Stage(
    name="decode",
    kind="media",
    version=1,
    summary="Decode videos: one frame a second, mono audio, presentation times.",
    reads={"dataset": Reads("dataset", "Which clips.")},
    params=Params,
    run=run,
    sources=sources,
    shard_rows=32,
    example="avvp-pipe decode --dataset dataset/mine",
)
