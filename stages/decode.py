"""Stage `decode`: videos in, sampled frames and waveforms out, with presentation times and a status per clip.

    clip.mp4 -> frames (T * k, S, S, 3), k a second     audio (T * rate,) mono, or the file's whole sound

Clips are decoded in worker processes that can be killed; a clip that cannot be decoded costs only itself. `extract`
can do the same by itself and keep nothing; media that are kept can be embedded again with other teachers.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from avvp_pipe.stages.clips.failures import checked_limit, failure_limit
from avvp_pipe.stages.clips.parts import part_of
from avvp_pipe.stages.clips.videos import video_digests, video_paths
from avvp_pipe.stages.digests import combined_digest
from avvp_pipe.stages.stage import COUNT, Inputs, Progress, Reads, Stage, counted, option, outside_key

if TYPE_CHECKING:
    from avvp_pipe.stages.clips.units import Unit
    from avvp_pipe.stages.media import Sampling
    from avvp_pipe.store import Builder


@dataclass(frozen=True, slots=True)
class Params:
    """What to take from each video."""

    frame_rule: Literal["linspace", "linspace-7", "centre"] = option(
        "linspace",
        "Which frames stand for a second: VALOR's even spacing at 8 fps, the same as ffmpeg 7 has it "
        "(linspace-7), or the centres of equal parts.",
    )
    frames_per_second: Annotated[int, Field(ge=1, le=60)] = option(1, "Frames taken of each second.")
    frame_size: Annotated[int, Field(ge=16, le=1024)] = option(224, "Side of the stored square frames, in pixels.")
    resize: Literal["stretch", "crop"] = option(
        "stretch", "VALOR's stretch (bilinear, no antialias), or CLIP's own bicubic with centre crop."
    )
    frame_dtype: Literal["uint8", "float32"] = option(
        "uint8", "How frames are stored: rounded to 8 bits, or as VALOR has them (four times the room)."
    )
    sample_rate: Annotated[int, Field(ge=8000, le=96000)] = option(48000, "Samples a second of the stored audio.")
    audio_cut: Literal["exact", "valor"] = option(
        "exact", "Seconds of sound: exact, or VALOR's tenths of whatever length the file's sound has."
    )
    audio_dtype: Literal["float32", "int16"] = option("float32", "How samples are stored; int16 takes half the room.")
    shard: str = option("", "Only part I of N of the clips, as I/N; `avvp-pipe merge` puts the parts together.")
    videos: str = outside_key("", "Folder that relative paths start from, if not the dataset's own.")
    workers: Annotated[str, COUNT] = outside_key(
        "auto", "Decoding processes; 0 decodes in this one, without a time limit."
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = outside_key(60.0, "Time limit of one clip.")
    memory_limit: Annotated[int, Field(ge=0)] = outside_key(4096, "Memory of one decoding process, MiB; 0: no limit.")
    max_failures: Annotated[str, AfterValidator(checked_limit)] = outside_key(
        "", "Stop when more clips than this have failed: a number, or a share such as 5%."
    )


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """One digest over the bytes of all videos; a missing one counts as missing."""
    dataset = inputs["dataset"]
    rows = part_of(params.shard).rows(len(dataset.strings("video_ids")))
    digests = video_digests(dataset, params.videos, rows)
    return {"videos": combined_digest(zip(dataset.strings("video_ids")[rows], digests, strict=True))}


def sampling_of(params: Params) -> "Sampling":
    """The part of the parameters that says what to take from a clip."""
    from avvp_pipe.stages.media import Sampling

    names = tuple(Sampling.__dataclass_fields__)
    return Sampling(**{name: getattr(params, name) for name in names})


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Decode what is pending and write it shard by shard."""
    from avvp_pipe.stages.clips.units import build_units, patched, redo_mask
    from avvp_pipe.stages.media.gather import Clips, Decoding, media_columns, media_units, worker_count

    dataset, sampling = inputs["dataset"], sampling_of(params)
    names, every = dataset.strings("video_ids"), dataset.array("lengths")
    rows = part_of(params.shard).rows(len(names))
    names, lengths, segments = names[rows], every[rows], int(every.max(initial=0))
    digests = video_digests(dataset, params.videos, rows)
    redo = redo_mask(out.previous, digests)
    clips = Clips(names, video_paths(dataset, params.videos, rows), lengths, segments, redo)
    for name, (shape, dtype, fill) in media_columns(sampling, segments, params.audio_dtype).items():
        out.declare(name, (len(names), *shape), dtype, fill=fill)
    out.put("video_ids", names)
    out.put("lengths", lengths)
    out.put("video_digests", digests)
    out.describe(sampling=asdict(sampling))
    decoding = Decoding(worker_count(params.workers), params.timeout_seconds, params.memory_limit * 2**20)

    def decoded(units: "Sequence[slice]") -> "Generator[Unit]":
        left = sum(int(redo[unit].sum()) for unit in units)
        with counted(progress, "decode", total=len(names), done=len(names) - left) as count:
            for unit in media_units(clips, units, sampling, decoding, audio_dtype=params.audio_dtype):
                count(int(redo[unit.rows].sum()))
                yield patched(unit, redo[unit.rows], out.previous) if out.previous else unit

    build_units(out, decoded, limit=failure_limit(params.max_failures, len(names)), keep=False)


def estimate(inputs: Inputs, params: Params, progress: Progress) -> Mapping[str, Any]:
    """Clips, bytes and time, told from a few clips that are decoded for it."""
    from avvp_pipe.stages.clips.estimate import Plan, clip_digests, decoding_estimate
    from avvp_pipe.stages.media.gather import Clips, Decoding, media_columns, media_units, worker_count

    dataset, sampling, digests = inputs["dataset"], sampling_of(params), clip_digests(inputs, params)
    names, every, workers = dataset.strings("video_ids"), dataset.array("lengths"), worker_count(params.workers)
    rows, segments = part_of(params.shard).rows(len(names)), int(every.max(initial=0))
    paths, wanted = video_paths(dataset, params.videos, rows), np.ones(len(digests), np.bool_)
    clips = Clips(names[rows], paths, every[rows], segments, wanted)
    decoding = Decoding(min(workers, 1), params.timeout_seconds, params.memory_limit * 2**20)
    make = partial(media_units, clips, sampling=sampling, decoding=decoding, audio_dtype=params.audio_dtype)
    plan = Plan(make, digests, every[rows], segments, workers, progress)
    return decoding_estimate(plan, media_columns(sampling, segments, params.audio_dtype))


STAGE = Stage(
    name="decode",
    kind="media",
    # 2: whole sound for VALOR's cut, several frames a second, the files' digests; 3: what becomes of damaged pictures
    version=3,
    summary="Decode videos: frames, mono sound, and their times. A clip that cannot be decoded costs only itself. "
    "`extract` decodes by itself; media are worth their room where they are embedded more than once.",
    reads={"dataset": Reads("dataset", "Which clips.")},
    params=Params,
    run=run,
    sources=sources,
    retries=True,
    estimate=estimate,
    shard_rows=32,
    example="""\
frames and sound of every clip, to embed them more than once
avvp-pipe decode --dataset mine --name mine
what it would take
avvp-pipe decode --dataset mine --dry-run
try again what failed
avvp-pipe decode --dataset mine --retry-failed""",
)
