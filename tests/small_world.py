"""Small videos with a manifest, made in a second, for tests that extract many times."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import av
import numpy as np

RATE = 16000
TINY = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap")


def write_video(path: Path, seed: int, *, seconds: float = 2.0, fps: int = 5) -> Path:
    """An mp4 of coloured blocks that change from frame to frame, and of as much sound."""
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast"})
        sound = container.add_stream("aac", rate=RATE, layout="mono")
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(round(seconds * fps)):
            blocks = rng.integers(0, 256, (6, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
            container.mux(video.encode(av.VideoFrame.from_ndarray(blocks, format="rgb24")))
        container.mux(video.encode(None))
        wave = np.sin(np.arange(round(seconds * RATE)) * (0.05 + 0.03 * rng.random())) * 0.5
        for start in range(0, len(wave), 1024):
            piece = np.ascontiguousarray(wave[None, start : start + 1024].astype(np.float32))
            samples = av.AudioFrame.from_ndarray(piece, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = RATE, start
            container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path


def write_manifest(folder: Path, files: Sequence[str], seconds: Sequence[int]) -> Path:
    """A manifest of clips `c000`, `c001`…, whose files lie in the folder, or do not."""
    records = [
        {
            "id": f"c{row:03d}",
            "path": name,
            "split": "train",
            "labels": ["Bell", "Drum"][: 1 + row % 2],
            "seconds": long,
        }
        for row, (name, long) in enumerate(zip(files, seconds, strict=True))
    ]
    path = folder / "clips.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def small_world(folder: Path, clips: int, *, lengths: Mapping[int, float] = MappingProxyType({})) -> Path:
    """So many clips, each of a file of its own: two seconds for every fourth, else one. lengths: of some files."""
    seconds = [int(lengths.get(row, 2 if row % 4 == 3 else 1)) for row in range(clips)]
    for row, long in enumerate(seconds):
        write_video(folder / f"v{row:03d}.mp4", row, seconds=lengths.get(row, long))
    return write_manifest(folder, [f"v{row:03d}.mp4" for row in range(clips)], seconds)


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def arrays_of(artifact: Any) -> dict[str, bytes]:
    """The bits of every array of an artifact."""
    names = artifact.array_names()
    numbers = {name: artifact.array(name).tobytes() for name in names if name not in STRINGS}
    return numbers | {name: repr(list(artifact.strings(name))).encode() for name in names if name in STRINGS}


STRINGS = ("video_ids", "splits", "video_digests")
