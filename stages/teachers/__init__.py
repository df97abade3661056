"""Frozen teachers behind one interface: an image-text model looks, an audio-text model listens, both second by second.

    tiny-clip, tiny-clap                 ship with the package and know the rendered world only
    ViT-L-14-quickgelu, ...              any model of open_clip                              (openclip.py)
    HTSAT-tiny-fused, ...                laion_clap's, and transformers' ClapModel           (clap.py)

`name` is the architecture, part of an artifact's key; `weights` is where they are on this machine: a tag, a file or a
folder, which stays out of the key, their digest being in it. Nothing here goes to the network.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.digests import DigestMemory, combined_digest
from avvp_pipe.stages.teachers.shipped import FOLDER, shipped_digest
from avvp_pipe.store import cache_folder
from avvp_pipe.store.identity import canonical_json

TINY_CLIP, TINY_CLAP = "tiny-clip", "tiny-clap"
CPU_BATCH, GPU_BATCH = 16, 256


class VisualTeacher(Protocol):
    """An image-text model."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def width(self) -> int:
        """D, of an embedding."""
        ...

    @property
    def image_size(self) -> int:
        """Side of the frames it takes, in pixels."""
        ...

    @property
    def log_scale(self) -> float:
        """Natural logarithm of what it multiplies cosines by."""
        ...

    def images(self, frames: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (B, S, S, 3) RGB, uint8 or float32 in grey levels 0 to 255 -> (B, D), L2-normalised."""
        ...

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D), L2-normalised."""
        ...


class AudioTeacher(Protocol):
    """An audio-text model. Some also have `has_maps` and `maps(waves (B, n)) -> (B, 64, 768)`, VALOR++'s input."""

    @property
    def name(self) -> str:
        """As on the command line."""
        ...

    @property
    def width(self) -> int:
        """D, of an embedding."""
        ...

    @property
    def sample_rate(self) -> int:
        """Samples a second that it takes."""
        ...

    @property
    def log_scale(self) -> float:
        """Natural logarithm of what it multiplies cosines by."""
        ...

    def sounds(self, pieces: NDArray[np.float32] | Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Pieces (B, L), or B of any lengths up to 10 s, in [-1, 1] -> (B, D), L2-normalised."""
        ...

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D), L2-normalised."""
        ...


@dataclass(frozen=True, slots=True)
class VisualFacts:
    """What can be said of an image-text teacher without loading it."""

    image_size: int
    """Side of its frames, in pixels."""
    width: int
    """D, of an embedding."""


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What can be said of an audio-text teacher without loading it."""

    sample_rate: int
    width: int
    """D, of an embedding."""


def visual_teacher(name: str, *, weights: str = "", device: str = "cpu", precision: str = "fp32") -> VisualTeacher:
    """Load an image-text teacher. Raises ValueError for what is unknown, missing, or does not fit."""
    if name == TINY_CLIP:
        _embedded(name, weights, precision)
        from avvp_pipe.stages.teachers.embedded import load_tiny_clip

        return load_tiny_clip(device)
    _not_of_the_other_kind(name, "visual")
    from avvp_pipe.stages.teachers.openclip import load

    return load(name, weights, device, precision)


def audio_teacher(
    name: str, *, weights: str = "", device: str = "cpu", precision: str = "fp32", fill: str = "repeatpad"
) -> AudioTeacher:
    """Load an audio-text teacher. Raises ValueError for what is unknown, missing, or does not fit."""
    if name == TINY_CLAP:
        _embedded(name, weights, precision)
        from avvp_pipe.stages.teachers.embedded import load_tiny_clap

        return load_tiny_clap(device)
    _not_of_the_other_kind(name, "audio")
    from avvp_pipe.stages.teachers.clap import load

    return load(name, weights, device, precision, fill)


def visual_facts(name: str, weights: str = "") -> VisualFacts:
    """Frame size and width of an image-text teacher, from its configuration alone. Raises ValueError."""
    if name == TINY_CLIP:
        model = json.loads((FOLDER / f"{name}.json").read_text())["model"]
    else:
        _not_of_the_other_kind(name, "visual")
        from avvp_pipe.stages.teachers.openclip_files import configuration

        model = configuration(name, weights)
    return VisualFacts(int(model["vision_cfg"].get("image_size", 224)), int(model["embed_dim"]))


def audio_facts(name: str, weights: str = "") -> AudioFacts:
    """Sample rate and width of an audio-text teacher, from its configuration alone. Raises ValueError."""
    if name == TINY_CLAP:
        record = json.loads((FOLDER / f"{name}.json").read_text())
        return AudioFacts(int(record["sample_rate"]), int(record["model"]["projection_dim"]))
    _not_of_the_other_kind(name, "audio")
    from avvp_pipe.stages.teachers.clap import facts

    return AudioFacts(*facts(name, weights))


def teacher_digest(name: str, weights: str = "") -> str:
    """sha256 over everything that a teacher's embeddings depend on: weights, configuration, tokenizer.

    The same bytes give the same digest, wherever they lie and whatever the files are called. Reads files only, big
    ones once. Raises ValueError where the name is unknown or files are missing on this machine.
    """
    if name in (TINY_CLIP, TINY_CLAP):
        _embedded(name, weights, "fp32")
        return shipped_digest(name)
    if is_audio(name):
        from avvp_pipe.stages.teachers.clap import files

        paths, parts = files(name, weights), []
    else:
        from avvp_pipe.stages.teachers.openclip_files import locate

        found = locate(name, weights)
        paths = found.all
        text = canonical_json({"model": dict(found.config), "mean": found.mean, "std": found.std})
        parts = [("configuration", hashlib.sha256(text.encode()).hexdigest())]
    memory = DigestMemory(cache_folder() / "digests.json")
    parts += [("file", memory.digest(path)) for path in paths]
    memory.save()
    return combined_digest(parts)


def is_audio(name: str) -> bool:
    """Whether a teacher listens."""
    from avvp_pipe.stages.teachers.clap import NAMES

    return name == TINY_CLAP or name in NAMES


def default_batch(device: str) -> int:
    """How many segments are embedded at once unless somebody says: more is no faster there, and takes memory.

    >>> default_batch("cpu"), default_batch("cuda:1")
    (16, 256)
    """
    return GPU_BATCH if device.startswith("cuda") else CPU_BATCH


def _not_of_the_other_kind(name: str, kind: str) -> None:
    if kind == "visual" and is_audio(name):
        raise ValueError(f"{name} is no visual teacher, it listens; there are tiny-clip, ViT-L-14-quickgelu and others")
    if kind == "audio" and not is_audio(name):
        from avvp_pipe.stages.teachers.clap import NAMES

        raise ValueError(f"no audio teacher {name!r}; there are {', '.join((TINY_CLAP, *NAMES))}")


def _embedded(name: str, weights: str, precision: str) -> None:
    if weights or precision != "fp32":
        given = f"weights {weights!r}" if weights else f"precision {precision}"
        raise ValueError(f"{name} has its own weights and computes in fp32, came {given}; leave them out")


__all__ = [
    "AudioFacts",
    "AudioTeacher",
    "VisualFacts",
    "VisualTeacher",
    "audio_facts",
    "audio_teacher",
    "default_batch",
    "is_audio",
    "teacher_digest",
    "visual_facts",
    "visual_teacher",
]
