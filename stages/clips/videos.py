"""The video files of a dataset's clips: where they lie, and what they hold by digest."""

from pathlib import Path
from typing import TYPE_CHECKING

from avvp_pipe.stages.digests import DigestMemory
from avvp_pipe.store import cache_folder

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

__all__ = ["video_digests", "video_paths"]


def video_paths(dataset: "Artifact", videos: str, rows: slice = slice(None)) -> list[Path]:
    """Where each clip's file should be. videos: folder to start from instead of the dataset's own."""
    root = Path(videos) if videos else Path(dataset.attrs["location"])
    return [root / path for path in dataset.strings("paths")[rows]]


def video_digests(dataset: "Artifact", videos: str, rows: slice = slice(None)) -> list[str]:
    """sha256 of each clip's file, "missing" where none can be read; remembered, so that files are read once."""
    memory = DigestMemory(cache_folder() / "digests.json")
    digests = [_digest(memory, path) for path in video_paths(dataset, videos, rows)]
    memory.save()
    return digests


def _digest(memory: DigestMemory, path: Path) -> str:
    try:
        return memory.digest(path)
    except OSError:  # it may not be read, or its drive is bad: that clip's trouble, which decoding will name
        return "missing"
