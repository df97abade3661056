"""What runs on the machines of a Ray cluster: decoding one unit, and a teacher that embeds units.

Needs no Ray to be imported. A machine whose packages or weights differ from the driver's would give other bits under
the same key, so each looks at its own before it begins.
"""

import dataclasses
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.embedding import Columns, Embedder, Embedding, load_embedder
from avvp_pipe.stages.clips.units import Unit
from avvp_pipe.stages.media.source import Videos
from avvp_pipe.stages.teachers import teacher_digest

__all__ = ["Setting", "TeacherOnNode", "cut", "decode_unit", "setting", "take_place", "weights_digests"]

PACKAGES = (
    *("avvp-pipe", "numpy", "torch", "torchaudio", "torchvision"),
    *("open_clip_torch", "laion_clap", "transformers", "decord", "av", "soxr"),
)
"""Whose versions results depend on."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the driver runs, and with what."""

    folder: str
    """Relative paths start here, on every machine."""
    host: str
    software: Mapping[str, str]


def setting() -> Setting:
    """Of this process."""
    return Setting(str(Path.cwd()), socket.gethostname(), software())


@cache
def software() -> Mapping[str, str]:
    """Versions of the packages that results depend on, "none" for those that are not installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def weights_digests(recipe: Embedding) -> tuple[str, str]:
    """Digests of the visual and of the audio teacher, as this machine has them."""
    visual = teacher_digest(recipe.visual_teacher, recipe.visual_weights)
    return visual, teacher_digest(recipe.audio_teacher, recipe.audio_weights)


def take_place(driver: Setting, *, relative: bool) -> None:
    """Compare packages, and go where relative paths start from. Raises ValueError."""
    here = software()
    if wrong := [name for name in here if here[name] != driver.software.get(name)]:
        found = ", ".join(f"{name} {here[name]} instead of {driver.software.get(name)}" for name in wrong)
        raise ValueError(
            f"node {socket.gethostname()} has {found}; results would differ. Install on all nodes what "
            f"{driver.host} has"
        )
    if not relative:
        return
    try:
        os.chdir(driver.folder)
    except OSError as error:
        raise ValueError(
            f"paths are relative to {driver.folder} on {driver.host}, and node {socket.gethostname()} cannot go there "
            f"({error.strerror}); start avvp-pipe in a folder that all nodes share, or name absolute paths"
        ) from error


def cut(videos: Videos, rows: slice) -> Videos:
    """The clips of `rows` alone, to be sent to who decodes them; their rows begin at 0.

    A task has one processor, and decodes in one process that can be killed (in its own where `workers` is 0).
    """
    every = videos.clips
    clips = dataclasses.replace(
        every,
        names=every.names[rows],
        paths=tuple(every.paths[rows]),
        lengths=every.lengths[rows],
        wanted=every.wanted[rows],
    )
    decoding = dataclasses.replace(videos.decoding, workers=min(videos.decoding.workers, 1))
    return dataclasses.replace(videos, clips=clips, decoding=decoding)


def decode_unit(videos: Videos, rows: slice, driver: Setting) -> tuple[str, Unit]:
    """Decode all clips of `videos`: the id of the node, and the unit as rows `rows` of the dataset."""
    from ray import get_runtime_context

    take_place(driver, relative=not all(path.is_absolute() for path in videos.clips.paths))
    with closing(videos.units([slice(0, rows.stop - rows.start)])) as made:
        unit = next(made)
    return get_runtime_context().get_node_id(), dataclasses.replace(unit, rows=rows)


class TeacherOnNode:
    """Both teachers of a recipe in a process of their own (a Ray actor). `load` comes first."""

    _embedder: Embedder
    _segments: int

    def load(self, recipe: Embedding, segments: int, digests: tuple[str, str], driver: Setting) -> Columns:
        """Load the weights, which must be those the driver has. Raises ValueError."""
        try:
            given = (recipe.visual_weights, recipe.audio_weights)
            take_place(driver, relative=any(path and not Path(path).is_absolute() for path in given))
            _compare(recipe, digests)
            self._embedder, self._segments = load_embedder(recipe), segments
        except ValueError as error:
            if socket.gethostname() == driver.host:
                raise
            raise ValueError(f"on node {socket.gethostname()}: {error}") from error
        return self._embedder.columns(segments)

    def texts(self, prompts: Mapping[str, Mapping[str, Sequence[str]]]) -> dict[str, NDArray[np.float32]]:
        """Event texts of every prompt set."""
        return self._embedder.texts(prompts)

    def unit(self, media: Unit, lengths: NDArray[np.int32]) -> Unit:
        """Embed a unit. lengths: (n,) seconds of its clips."""
        # What lies in the object store can only be read; memory of one's own is what a local run has.
        arrays = {name: array.copy() for name, array in media.arrays.items()}
        return self._embedder.unit(dataclasses.replace(media, arrays=arrays), lengths, self._segments)


def _compare(recipe: Embedding, digests: tuple[str, str]) -> None:
    names = (recipe.visual_teacher, recipe.audio_teacher)
    for name, wanted, found in zip(names, digests, weights_digests(recipe), strict=True):
        if found != wanted:
            raise ValueError(
                f"the weights of {name} here have the digest {found[:12]}…, the driver's {wanted[:12]}…; copy the "
                "driver's files to this machine, or put them where all nodes read them"
            )
