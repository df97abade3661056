"""Stage `extract`: media in, one embedding a second for vision and audio out, and those of the event texts.

    frames (T, S, S, 3) -> visual (T, Dv)      audio (T * rate,) -> T pieces of one second -> audio (T, Da)
    prompts of every prompt set -> text_visual/<set> (C, Dv), text_audio/<set> (C, Da)

All embeddings are L2-normalised; float16, if asked for, is rounded after that. Rows of failed clips and segments
beyond a clip's length are NaN.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.media.quantise import as_float32
from avvp_pipe.stages.rows import OK, check_same_clips, put_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option, outside_key
from avvp_pipe.stages.teachers import AudioTeacher, VisualTeacher, audio_teacher, teacher_digest, visual_teacher

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

MEDIA_ROWS = 32
"""Clips whose frames and sound are in memory at once."""


@dataclass(frozen=True, slots=True)
class Params:
    """Which teachers look and listen."""

    visual_teacher: str = option("tiny-clip", "Image-text model.")
    audio_teacher: str = option("tiny-clap", "Audio-text model.")
    stored_as: Literal["float32", "float16"] = option("float32", "Type of the stored embeddings; float16 takes half.")
    batch_size: Annotated[int, Field(ge=1)] = outside_key(256, "Segments embedded at once.")
    device: str = outside_key("auto", "auto, cpu or cuda:N.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """Digests of the teachers' weights, configurations and tokenizers."""
    return {name: teacher_digest(name) for name in (params.visual_teacher, params.audio_teacher)}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Embed what is pending and write it shard by shard."""
    from avvp_pipe.stages.blocks.device import torch_device

    media, dataset = inputs["media"], inputs["dataset"]
    check_same_clips(media, dataset)
    device = str(torch_device(params.device))
    seer = visual_teacher(params.visual_teacher, device=device)
    hearer = audio_teacher(params.audio_teacher, device=device)
    _put_texts(out, dataset.attrs["prompts"], seer, hearer)
    put_clips(out, dataset)
    out.describe(
        classes=list(dataset.attrs["classes"]),
        visual_log_scale=seer.log_scale,
        audio_log_scale=hearer.log_scale,
    )
    clips, segments = media.facts("frame_indices").shape
    out.declare("visual", (clips, segments, seer.width), params.stored_as, fill=float("nan"))
    out.declare("audio", (clips, segments, hearer.width), params.stored_as, fill=float("nan"))
    out.declare("status", (clips,), "uint8")
    shards = list(out.pending())
    done = -(-clips // STAGE.shard_rows) - len(shards)
    for shard in progress.track(shards, total=len(shards) + done, label="extract", done=done):
        arrays = _embed_shard(media, shard, seer, hearer, params.batch_size)
        stored = {name: arrays[name].astype(params.stored_as) for name in ("visual", "audio")}
        out.write(shard, {**arrays, **stored})


def _put_texts(
    out: "Builder", prompts: Mapping[str, Mapping[str, list[str]]], seer: VisualTeacher, hearer: AudioTeacher
) -> None:
    for name, texts in prompts.items():
        out.put(f"text_visual/{name}", seer.texts(texts["visual"]))
        out.put(f"text_audio/{name}", hearer.texts(texts["audio"]))


def _embed_shard(
    media: "Artifact", shard: slice, seer: VisualTeacher, hearer: AudioTeacher, batch_size: int
) -> dict[str, NDArray[Any]]:
    """One shard of features, from as many pieces of media as are held in memory one at a time."""
    count, segments = shard.stop - shard.start, media.facts("frame_indices").shape[1]
    arrays: dict[str, NDArray[Any]] = {
        "visual": np.full((count, segments, seer.width), np.nan, np.float32),
        "audio": np.full((count, segments, hearer.width), np.nan, np.float32),
        "status": media.rows("status", shard),
    }
    for start in range(shard.start, shard.stop, MEDIA_ROWS):
        rows = slice(start, min(start + MEDIA_ROWS, shard.stop))
        place = slice(rows.start - shard.start, rows.stop - shard.start)
        valid = np.arange(segments) < media.rows("lengths", rows)[:, None]
        valid &= (arrays["status"][place] == OK)[:, None]
        if valid.any():
            frames = fit_frames(media.rows("frames", rows)[valid], seer.image_size)
            waves = media.rows("audio", rows).reshape(len(valid), segments, -1)[valid]
            waves = at_rate(as_float32(waves), int(media.attrs["sample_rate"]), hearer.sample_rate)
            arrays["visual"][place][valid] = _batched(seer.images, frames, batch_size)
            arrays["audio"][place][valid] = _batched(hearer.sounds, waves, batch_size)
    return arrays


def _batched(embed: Any, items: NDArray[Any], size: int) -> NDArray[np.float32]:
    return np.concatenate([embed(items[start : start + size]) for start in range(0, len(items), size)])


def fit_frames(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Resize square frames (M, S, S, 3) to the teacher's (M, side, side, 3), bilinear with antialias.

    Frames that were decoded at the teacher's size, as they should be, come back untouched.
    """
    if frames.shape[1:3] == (side, side):
        return frames
    import torch
    from torch.nn.functional import interpolate

    moved = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    resized = interpolate(moved, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return resized.round().clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def at_rate(waves: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.float32]:
    """Resample pieces of one second (M, rate) to (M, wanted) samples with torchaudio's windowed sinc."""
    if rate == wanted:
        return waves
    import torch
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(waves), rate, wanted)
    return np.asarray(resampled[:, :wanted].numpy(), dtype=np.float32)


STAGE = Stage(
    name="extract",
    kind="features",
    version=1,
    summary="Embed every second with an image-text and an audio-text teacher, and the event texts with both.",
    reads={
        "media": Reads("media", "Decoded frames and audio."),
        "dataset": Reads("dataset", "Classes and prompts."),
    },
    params=Params,
    run=run,
    sources=sources,
    example="avvp-pipe extract --media media/mine --dataset dataset/mine",
)
