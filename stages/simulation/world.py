"""The space in which a simulated teacher puts texts and segments.

A class's text and prototype are made of its name alone (its words, its kinds, and something of its own), so that a
class has the same vectors in every dataset, and related names have related ones::

    text      = cone * common + sqrt(1 - cone^2) * concept
    prototype = gap * concept + sqrt(1 - gap^2) * signature

The signature is what the teacher's features show of a class beside its text: a comparison with the text misses it, a
generator that is trained on other classes can learn of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.simulation.chance import stream
from avvp_pipe.stages.simulation.names import VOICES, Meaning, meaning
from avvp_pipe.stages.simulation.settings import SENSES, Modality, Sense

CONCEPTS = 64
"""Dimensions in which classes differ."""
SCENES = 32
"""Dimensions in which scenes differ, apart from what they have of classes."""
KIND_WEIGHT, OWN_WEIGHT = 0.5, 0.45
"""Of what a name's kinds, and the name itself, add to its words, which weigh 1."""
TRANSFER = 0.8
"""Cosine of a signature with the concept, each along its own axes: how well what is learnt of some classes serves
others."""
PROMPT_NOISE = 0.15
"""How differently a teacher reads two sentences about one class."""

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Axes:
    """Directions of one teacher's space, all orthogonal to one another."""

    concepts: Array
    """(CONCEPTS, D)."""
    signatures: Array
    """(CONCEPTS, D)."""
    scenes: Array
    """(SCENES, D)."""
    common: Array
    """(D,) what all texts share."""
    segment: Array
    """(D,) what all segments share, and no text."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """What one teacher knows of C classes."""

    sense: Sense
    world: int
    settings: Modality
    axes: Axes
    classes: tuple[str, ...]
    concepts: Array
    """(C, CONCEPTS), unit length."""
    prototypes: Array
    """(C, D), unit length."""
    empty: Array
    """(D,) a segment in which nothing happens."""
    gains: Array
    """(C,) size of a class that is evident."""
    leaks: Array
    """(C,) share of the other time in which it seems to be there."""


def teacher_of(classes: Sequence[str], sense: Sense, *, world: int = 0, settings: Modality | None = None) -> Teacher:
    """The teacher's view of these classes in one world. settings: others than the tuned ones."""
    numbers = settings or SENSES[sense]
    axes = _axes(sense, numbers.width, world)
    said = [meaning(name) for name in classes]
    concepts, own = (_directions(said, sense, world, of) for of in ("concept", "signature"))
    signatures = unit(TRANSFER * concepts + np.sqrt(1 - TRANSFER**2) * own)
    voices = np.array([bool(one.kinds(sense) & VOICES) for one in said])
    spread = np.array([stream(world, sense, "gain", *one.words).standard_normal() for one in said])
    slant = np.sqrt(1 - numbers.gap**2)
    return Teacher(
        sense=sense,
        world=world,
        settings=numbers,
        axes=axes,
        classes=tuple(classes),
        concepts=concepts,
        prototypes=numbers.gap * mixed(concepts, axes.concepts) + slant * mixed(signatures, axes.signatures),
        empty=_empty(axes, sense, numbers, world),
        gains=numbers.gain * np.exp(numbers.gain_spread * spread) * np.where(voices, numbers.voice_gain, 1.0),
        leaks=np.where(voices, numbers.voice_leak, numbers.leak),
    )


def text_features(teacher: Teacher, prompts: Sequence[str]) -> NDArray[np.float32]:
    """(C, D) of unit length: what the teacher makes of one sentence a class. Raises ValueError for another number.

    Two sentences about one class differ by a little noise: which prompts are better cannot be asked of a simulation.
    """
    if len(prompts) != len(teacher.classes):
        raise ValueError(
            f"wanted one sentence for each of {len(teacher.classes)} classes, but {len(prompts)} came; "
            "give the prompts of these classes, in their order"
        )
    cone, world, sense = teacher.settings.cone, teacher.world, teacher.sense
    read = np.stack([stream(world, sense, "prompt", one).standard_normal(CONCEPTS) for one in prompts])
    concepts = unit(teacher.concepts + PROMPT_NOISE / np.sqrt(CONCEPTS) * read)
    found = cone * teacher.axes.common + np.sqrt(1 - cone**2) * mixed(concepts, teacher.axes.concepts)
    return np.asarray(found, np.float32)


def unit(vectors: Array) -> Array:
    """Scaled to length 1 along the last axis."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def mixed(weights: Array, rows: Array) -> Array:
    """weights (N, R) @ rows (R, D), summed in the order of rows: the same bits whatever else is in `weights`."""
    return np.asarray(np.einsum("nr,rd->nd", weights, rows))


def _directions(said: Sequence[Meaning], sense: Sense, world: int, of: str) -> Array:
    """(C, CONCEPTS) of unit length: related names have related directions."""

    def direction(*what: str) -> Array:
        return unit(stream(world, sense, of, *what).standard_normal(CONCEPTS))

    found = []
    for one in said:
        vector = unit(np.sum([direction("word", word) for word in one.words], axis=0))
        vector = vector + OWN_WEIGHT * direction("own", one.name)
        if kinds := sorted(one.kinds(sense)):
            vector = vector + KIND_WEIGHT * unit(np.sum([direction("kind", kind) for kind in kinds], axis=0))
        found.append(vector)
    return unit(np.stack(found))


def _empty(axes: Axes, sense: Sense, settings: Modality, world: int) -> Array:
    liking = settings.liking / np.sqrt(CONCEPTS) * stream(world, sense, "empty").standard_normal(CONCEPTS)
    shared = settings.baseline / settings.cone
    return np.asarray(shared * axes.common + liking @ axes.concepts + settings.offset * axes.segment)


@lru_cache(maxsize=16)
def _axes(sense: Sense, width: int, world: int) -> Axes:
    sizes = {"concepts": CONCEPTS, "signatures": CONCEPTS, "scenes": SCENES, "common": 1, "segment": 1}
    columns, _ = np.linalg.qr(stream(world, sense, "axes").standard_normal((width, sum(sizes.values()))))
    rows = np.split(np.ascontiguousarray(columns.T), np.cumsum(list(sizes.values()))[:-1])
    concepts, signatures, scenes, common, segment = rows
    return Axes(concepts, signatures, scenes, common[0], segment[0])
