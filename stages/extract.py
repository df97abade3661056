"""Stage `extract`: one embedding a second for vision and audio, and those of the event texts.

    videos, or media from `decode` -> visual (N, T, Dv), audio (N, T, Da)
    prompts of every prompt set    -> text_visual/SET (C, Dv), text_audio/SET (C, Da)

Without --media the videos are decoded on the way and nothing decoded is kept; the features are the same, bit by bit.
All embeddings are L2-normalised; float16, if asked for, is rounded after that. Rows of failed clips and segments
beyond a clip's length are NaN.
"""

import dataclasses
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from avvp_pipe.stages.clips.failures import checked_limit, failure_limit
from avvp_pipe.stages.clips.parts import part_of
from avvp_pipe.stages.clips.videos import video_digests, video_paths
from avvp_pipe.stages.digests import combined_digest
from avvp_pipe.stages.rows import check_media_of, put_clips
from avvp_pipe.stages.stage import (
    COUNT,
    POSITIVE_COUNT,
    Inputs,
    ParameterError,
    Progress,
    Reads,
    Stage,
    counted,
    option,
    outside_key,
)
from avvp_pipe.stages.teachers import audio_facts, teacher_digest, visual_facts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from avvp_pipe.stages.blocks.embedding import Embedding
    from avvp_pipe.stages.clips.units import Unit
    from avvp_pipe.stages.executors import Executor
    from avvp_pipe.stages.media.source import MediaSource
    from avvp_pipe.store import Artifact, Builder

SAMPLING = "What is taken from the videos (without --media)"
SAMPLING_DEFAULTS: Mapping[str, Any] = {
    "frame_rule": "linspace",
    "frames_per_second": 1,
    "resize": "stretch",
    "frame_dtype": "uint8",
    "audio_cut": "exact",
}
"""As in `decode`; size and rate are the teachers'."""


@dataclass(frozen=True, slots=True)
class Params:
    """Which teachers look and listen, and at what."""

    visual_teacher: str = option("ViT-L-14-quickgelu", "Image-text model: open_clip's name, or tiny-clip.")
    audio_teacher: str = option(
        "HTSAT-tiny-fused", "Audio-text model: laion_clap's HTSAT-tiny-fused, HTSAT-tiny or HTSAT-base, "
        "transformers-clap, or tiny-clap."
    )  # fmt: skip
    precision: Literal["fp32", "bf16", "fp16"] = option("fp32", "What the teachers compute in; fp16 needs CUDA.")
    stored_as: Literal["float32", "float16"] = option("float32", "Type of the stored embeddings; float16 takes half.")
    quantise: bool = option(True, "Round samples to 16 bits first, as laion_clap does.")
    audio_fill: Literal["repeatpad", "pad"] = option("repeatpad", "How a second fills CLAP's ten: repeated, or zeros.")
    audio_map: bool = option(False, "Also store CLAP's feature map of the whole clip, which VALOR++ reads.")
    frame_rule: Literal["linspace", "linspace-7", "centre"] | None = option(
        None,
        "VALOR's even spacing at 8 fps (linspace, default), the same as ffmpeg 7 has it (linspace-7), or the "
        "centres of equal parts.",
        panel=SAMPLING,
    )
    frames_per_second: Annotated[int, Field(ge=1, le=60)] | None = option(
        None, "Frames taken of each second (1); of several, the mean is stored too.", panel=SAMPLING
    )
    frame_size: Annotated[int, Field(ge=16, le=1024)] | None = option(
        None, "Side of the square frames in pixels (the teacher's).", panel=SAMPLING
    )
    resize: Literal["stretch", "crop"] | None = option(
        None, "VALOR's stretch without antialias (default), or CLIP's own bicubic with centre crop.", panel=SAMPLING
    )
    frame_dtype: Literal["uint8", "float32"] | None = option(
        None, "Frames rounded to 8 bits (default), or not, as in VALOR.", panel=SAMPLING
    )
    sample_rate: Annotated[int, Field(ge=8000, le=96000)] | None = option(
        None, "Samples a second (the teacher's).", panel=SAMPLING
    )
    audio_cut: Literal["exact", "valor"] | None = option(
        None, "Exact seconds (default), or VALOR's tenths of whatever length the sound has.", panel=SAMPLING
    )
    shard: str = option("", "Only part I of N of the clips, as I/N; `avvp-pipe merge` puts the parts together.")
    visual_weights: str = outside_key("", "open_clip's tag, a checkpoint file or a folder; its digest is in the key.")
    audio_weights: str = outside_key("", "Tag such as 630k-fusion-best, a checkpoint file or a folder (likewise).")
    videos: str = outside_key("", "Folder that relative paths start from, if not the dataset's own.")
    device: str = outside_key("auto", "auto, cpu or cuda:N.")
    batch_size: Annotated[str, POSITIVE_COUNT] = outside_key(
        "auto", "Embeddings computed at once; the last bits depend on it."
    )
    threads: Annotated[int, Field(ge=0)] = outside_key(0, "Of torch on a CPU (last bits depend on it); 0: all.")
    workers: Annotated[str, COUNT] = outside_key(
        "auto", "Decoding processes; 0 decodes in this one, without a time limit."
    )
    timeout_seconds: Annotated[float, Field(gt=0)] = outside_key(60.0, "Time limit of decoding one clip.")
    memory_limit: Annotated[int, Field(ge=0)] = outside_key(4096, "Memory of one decoding process, MiB; 0: no limit.")
    max_failures: Annotated[str, AfterValidator(checked_limit)] = outside_key(
        "", "Stop when more clips than this have failed: a number, or a share such as 5%."
    )
    executor: Literal["local", "ray"] = outside_key("local", "Here, or on a Ray cluster (needs avvp-pipe[ray]).")


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in what is taken from the videos: as the media were made, or the defaults and what the teachers want."""
    if "media" in inputs:
        made: Mapping[str, Any] = inputs["media"].attrs.get("sampling", {})
        given = {name: getattr(params, name) for name in made}
        if wrong := [name for name, value in given.items() if value not in (None, made[name])]:
            flag = f"--{wrong[0].replace('_', '-')}"
            raise ParameterError(
                f"{flag} {given[wrong[0]]} was asked for, but {inputs['media'].reference} was decoded with "
                f"{made[wrong[0]]}; leave {flag} out, or leave --media out to decode the videos anew"
            )
        if not made:
            raise ParameterError(f"{inputs['media'].reference} does not say how it was sampled; run decode again")
        return dataclasses.replace(params, **made)
    wanted = {
        **SAMPLING_DEFAULTS,
        "frame_size": visual_facts(params.visual_teacher, params.visual_weights).image_size,
        "sample_rate": audio_facts(params.audio_teacher, params.audio_weights).sample_rate,
    }
    return dataclasses.replace(
        params, **{name: value for name, value in wanted.items() if getattr(params, name) is None}
    )


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """Digests of the teachers' weights, configurations and tokenizers, and of the videos if they are read."""
    found = {
        params.visual_teacher: teacher_digest(params.visual_teacher, params.visual_weights),
        params.audio_teacher: teacher_digest(params.audio_teacher, params.audio_weights),
    }
    if "media" in inputs:
        return found
    names = inputs["dataset"].strings("video_ids")
    rows = part_of(params.shard).rows(len(names))
    digests = video_digests(inputs["dataset"], params.videos, rows)
    return {**found, "videos": combined_digest(zip(names[rows], digests, strict=True))}


def embedding_of(params: Params) -> "Embedding":
    """The part of the settled parameters that says how units are embedded."""
    from avvp_pipe.stages.blocks.device import torch_device
    from avvp_pipe.stages.blocks.embedding import Embedding
    from avvp_pipe.stages.media import Sampling
    from avvp_pipe.stages.teachers import default_batch

    on_cluster = params.executor == "ray"  # which knows its own devices, and what batch suits them
    device = params.device if on_cluster else str(torch_device(params.device))
    batch = 0 if on_cluster else default_batch(device)
    sampling = Sampling(**{name: getattr(params, name) for name in Sampling.__dataclass_fields__})
    return Embedding(
        visual_teacher=params.visual_teacher,
        audio_teacher=params.audio_teacher,
        sampling=sampling,
        visual_weights=params.visual_weights,
        audio_weights=params.audio_weights,
        precision=params.precision,
        audio_fill=params.audio_fill,
        quantise=params.quantise,
        audio_map=params.audio_map,
        device=device,
        batch_size=batch if params.batch_size == "auto" else int(params.batch_size),
        threads=params.threads,
    )


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Embed what is pending and write it shard by shard."""
    from avvp_pipe.stages.clips.units import build_units, patched, redo_mask
    from avvp_pipe.stages.executors import open_executor

    dataset, recipe = inputs["dataset"], embedding_of(params)
    every = dataset.array("lengths")
    rows = part_of(params.shard).rows(len(every))
    lengths = every[rows]
    digests = _digests(inputs, params, rows)
    redo = redo_mask(out.previous, digests)
    source = _source(inputs, params, rows, redo)
    with open_executor(params.executor, recipe, int(every.max(initial=0))) as executor:
        _declare(out, dataset, rows, executor, params)
        out.put("video_digests", digests)
        out.describe(sampling=asdict(recipe.sampling))

        def embedded(units: "Sequence[slice]") -> "Generator[Unit]":
            total = 2 * int(lengths.sum())
            left = 2 * sum(int(lengths[unit].sum()) for unit in units)
            with (
                counted(progress, "extract, embeddings", total=total, done=total - left) as count,
                closing(executor.units(source, units, lengths, count)) as found,
            ):
                for unit in found:
                    stored = _stored_as(unit, params.stored_as)
                    yield patched(stored, redo[unit.rows], out.previous) if out.previous else stored

        build_units(out, embedded, limit=failure_limit(params.max_failures, len(redo)), keep=True)


def _declare(out: "Builder", dataset: "Artifact", rows: slice, executor: "Executor", params: Params) -> None:
    for name, texts in executor.texts(dataset.attrs["prompts"]).items():
        out.put(name, texts)
    put_clips(out, dataset, rows)
    columns = executor.columns
    out.describe(
        classes=list(dataset.attrs["classes"]),
        visual_log_scale=columns.visual_log_scale,
        audio_log_scale=columns.audio_log_scale,
    )
    clips = rows.stop - rows.start
    for name, shape in columns.shapes.items():
        out.declare(name, (clips, *shape), params.stored_as, fill=float("nan"))
    out.declare("status", (clips,), "uint8")


def _stored_as(unit: "Unit", dtype: str) -> "Unit":
    arrays = {name: array if name == "status" else array.astype(dtype) for name, array in unit.arrays.items()}
    return dataclasses.replace(unit, arrays=arrays)


def _digests(inputs: Inputs, params: Params, rows: slice) -> list[str]:
    if "media" in inputs:
        check_media_of(inputs["media"], inputs["dataset"])
        return list(inputs["media"].strings("video_digests")[rows])
    return video_digests(inputs["dataset"], params.videos, rows)


def _source(inputs: Inputs, params: Params, rows: slice, wanted: "NDArray[np.bool_]") -> "MediaSource":
    from avvp_pipe.stages.media.gather import Clips, Decoding, worker_count
    from avvp_pipe.stages.media.source import StoredMedia, Videos

    dataset = inputs["dataset"]
    names, lengths = dataset.strings("video_ids")[rows], dataset.array("lengths")
    if "media" in inputs:
        return StoredMedia(inputs["media"], names, rows.start, wanted)
    paths = video_paths(dataset, params.videos, rows)
    clips = Clips(names, paths, lengths[rows], int(lengths.max(initial=0)), wanted)
    decoding = Decoding(worker_count(params.workers, spare=1), params.timeout_seconds, params.memory_limit * 2**20)
    return Videos(clips, embedding_of(params).sampling, decoding)


def estimate(inputs: Inputs, params: Params, progress: Progress) -> Mapping[str, Any]:
    """Clips, bytes and time, told from a few clips that are decoded and embedded for it."""
    from avvp_pipe.stages.clips.estimate import Plan, clip_digests, embedding_estimate
    from avvp_pipe.stages.media.gather import worker_count

    dataset, digests = inputs["dataset"], clip_digests(inputs, params)
    lengths, workers = dataset.array("lengths"), worker_count(params.workers, spare=1)
    rows = part_of(params.shard).rows(len(lengths))
    alone = dataclasses.replace(params, workers=str(min(workers, 1)))
    source = _source(inputs, alone, rows, np.ones(len(digests), np.bool_))
    decoding = 0 if "media" in inputs else workers
    plan = Plan(source.units, digests, lengths[rows], int(lengths.max(initial=0)), decoding, progress)
    itemsize = np.dtype(params.stored_as).itemsize
    here = dataclasses.replace(params, executor="local")
    return embedding_estimate(plan, embedding_of(here), dataset.attrs["prompts"], itemsize=itemsize)


STAGE = Stage(
    name="extract",
    kind="features",
    # 2: straight from videos too; batches cut at fixed places; the files' digests; 3: what becomes of damaged pictures
    version=3,
    summary="Embed every second with an image-text and an audio-text model, and the texts of the classes with both. "
    "Videos are decoded on the way, in processes that can be killed; what is done is kept, the same command goes on.",
    reads={
        "dataset": Reads("dataset", "Clips, classes and prompts."),
        "media": Reads("media", "Frames and sound that were decoded before; else videos are read.", required=False),
    },
    params=Params,
    run=run,
    sources=sources,
    settle=settle,
    retries=True,
    estimate=estimate,
    example="""\
from videos to features in three commands
avvp-pipe models fetch ViT-L-14-quickgelu HTSAT-tiny-fused
avvp-pipe dataset --source clips.jsonl --name mine
avvp-pipe extract --dataset mine
the same model with weights of another training
avvp-pipe extract --dataset mine --visual-weights my-clip.safetensors
one of four machines; later `avvp-pipe merge features/mine`
avvp-pipe extract --dataset mine --shard 1/4
all machines of a Ray cluster
avvp-pipe extract --dataset mine --executor ray""",
)
