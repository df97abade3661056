"""Frozen teachers behind one interface: an image-text model looks, an audio-text model listens, both second by second.

The embedded pair (`tiny-clip`, `tiny-clap`) ships with the package and knows the rendered world only. Their code path
is that of any teacher: weights from files, digests in the artifact's key, the same three methods.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.teachers.shipped import shipped_digest


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

    def images(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames (B, S, S, 3) RGB -> (B, D), L2-normalised."""
        ...

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D), L2-normalised."""
        ...


class AudioTeacher(Protocol):
    """An audio-text model."""

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

    def sounds(self, waves: NDArray[np.float32]) -> NDArray[np.float32]:
        """Pieces of one second (B, sample_rate) in [-1, 1] -> (B, D), L2-normalised."""
        ...

    def texts(self, prompts: Sequence[str]) -> NDArray[np.float32]:
        """Prompts -> (P, D), L2-normalised."""
        ...


def _tiny_clip(device: str) -> VisualTeacher:
    from avvp_pipe.stages.teachers.embedded import load_tiny_clip

    return load_tiny_clip(device)


def _tiny_clap(device: str) -> AudioTeacher:
    from avvp_pipe.stages.teachers.embedded import load_tiny_clap

    return load_tiny_clap(device)


VISUAL_TEACHERS: dict[str, Callable[[str], VisualTeacher]] = {"tiny-clip": _tiny_clip}
AUDIO_TEACHERS: dict[str, Callable[[str], AudioTeacher]] = {"tiny-clap": _tiny_clap}


def visual_teacher(name: str, *, device: str = "cpu") -> VisualTeacher:
    """Load an image-text teacher. Raises ValueError naming those there are."""
    if name not in VISUAL_TEACHERS:
        raise ValueError(f"no visual teacher {name!r}; there are {', '.join(VISUAL_TEACHERS)}")
    return VISUAL_TEACHERS[name](device)


def audio_teacher(name: str, *, device: str = "cpu") -> AudioTeacher:
    """Load an audio-text teacher. Raises ValueError naming those there are."""
    if name not in AUDIO_TEACHERS:
        raise ValueError(f"no audio teacher {name!r}; there are {', '.join(AUDIO_TEACHERS)}")
    return AUDIO_TEACHERS[name](device)


def teacher_digest(name: str) -> str:
    """sha256 over everything that a teacher's embeddings depend on: weights, configuration, tokenizer.

    Reads files only. Raises ValueError naming the teachers there are.
    """
    if name not in {**VISUAL_TEACHERS, **AUDIO_TEACHERS}:
        known = ", ".join([*VISUAL_TEACHERS, *AUDIO_TEACHERS])
        raise ValueError(f"no teacher {name!r}; there are {known}")
    return shipped_digest(name)


__all__ = [
    "AUDIO_TEACHERS",
    "VISUAL_TEACHERS",
    "AudioTeacher",
    "VisualTeacher",
    "audio_teacher",
    "teacher_digest",
    "visual_teacher",
]
