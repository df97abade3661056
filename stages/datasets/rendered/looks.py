"""How things look: small scenes drawn from signed distances, one frame at a time.

A frame is a dull background with texture and noise, and in it bright objects: a shape in a colour. An object may
be hidden by something passing in front of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.rendered.cast import COLOURS, SHAPES, TAKEN, Character, Shape

SIDE = 64
"""Pixels of a frame's side."""

BOARD = np.array((28, 28, 32), np.float32)
"""Colour of what passes before an object."""

_ROWS, _COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sprite:
    """One object of a scene and how it moves."""

    shape: Shape
    colour: tuple[int, int, int]
    centre: tuple[float, float]
    """Pixels, column and row, around which it sways."""
    sway: tuple[float, float]
    """Pixels, how far."""
    pace_hz: float
    phase: float
    radius: float
    """Pixels."""
    spin: float
    """Radians a second."""


@dataclass(frozen=True, slots=True)
class Backdrop:
    """What lies behind the objects."""

    top: tuple[float, float, float]
    bottom: tuple[float, float, float]
    texture: NDArray[np.float32]
    """(SIDE, SIDE, 1) grey levels."""
    noise: float
    """Standard deviation of the camera's noise, in grey levels."""


_DISTANCE: dict[Shape, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda x, y: np.hypot(x, y) - 0.9,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.22,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.8,
    "triangle": lambda x, y: np.maximum(np.abs(x) * 0.87 - y * 0.5 - 0.35, y - 0.6),
    "diamond": lambda x, y: (np.abs(x) * 1.5 + np.abs(y) - 1.1) * 0.6,
    "cross": lambda x, y: np.minimum(
        np.maximum(np.abs(x) - 1, np.abs(y) - 0.3), np.maximum(np.abs(x) - 0.3, np.abs(y) - 1)
    ),
    "star": lambda x, y: np.hypot(x, y) - 0.65 - 0.35 * np.cos(5 * np.arctan2(y, x)),
    "bars": lambda x, y: np.maximum(np.maximum(np.abs(x), np.abs(y)) - 0.95, np.abs((y * 1.6) % 1 - 0.5) - 0.25),
}
"""Signed distance to the outline, in radii, negative inside."""


def sprite_of(character: Character, random: np.random.Generator) -> Sprite:
    """The character's look, somewhere, in some size, with its colour a little off."""
    return _sprite(character.shape, character.colour, random)


def lookalike_of(character: Character, random: np.random.Generator) -> Sprite:
    """Somebody of the character's shape or colour, but of no class."""
    same_shape = [(character.shape, colour) for colour in COLOURS]
    same_colour = [(shape, character.colour) for shape in SHAPES]
    free = [look for look in same_shape + same_colour if look not in TAKEN]
    shape, colour = free[random.integers(len(free))]
    return _sprite(shape, colour, random)


def _sprite(shape: Shape, colour: str, random: np.random.Generator) -> Sprite:
    tint = np.clip(np.array(COLOURS[colour]) * random.uniform(0.75, 1.1) + random.normal(0, 9, 3), 0, 255)
    return Sprite(
        shape=shape,
        colour=(int(tint[0]), int(tint[1]), int(tint[2])),
        centre=(float(random.uniform(13, SIDE - 13)), float(random.uniform(13, SIDE - 13))),
        sway=(float(random.uniform(0, 6)), float(random.uniform(0, 6))),
        pace_hz=float(random.uniform(0.1, 0.5)),
        phase=float(random.uniform(0, 2 * np.pi)),
        radius=float(random.uniform(7, 12)),
        spin=float(random.normal(0, 0.15)),
    )


def backdrop(random: np.random.Generator) -> Backdrop:
    """A dull gradient with coarse texture."""
    top, bottom = (
        random.uniform(40, 130) + random.normal(0, 12, 3)
        for _ in range(2)
    )  # fmt: skip
    coarse = random.normal(0, 7, (8, 8, 1)).astype(np.float32)
    return Backdrop(
        top=(float(top[0]), float(top[1]), float(top[2])),
        bottom=(float(bottom[0]), float(bottom[1]), float(bottom[2])),
        texture=np.kron(coarse, np.ones((SIDE // 8, SIDE // 8, 1), np.float32)),
        noise=float(random.uniform(3, 9)),
    )


def frame_of(
    behind: Backdrop,
    sprites: Sequence[Sprite],
    hidden: Sequence[bool],
    *,
    seconds: float,
    random: np.random.Generator,
) -> NDArray[np.uint8]:
    """Draw the scene at a time: (SIDE, SIDE, 3) uint8. Where `hidden`, a dark board stands before a sprite."""
    share = (_ROWS / SIDE)[:, :, None]
    canvas = (1 - share) * np.array(behind.top, np.float32) + share * np.array(behind.bottom, np.float32)
    canvas += behind.texture
    for sprite, covered in zip(sprites, hidden, strict=True):
        x, y = _local(sprite, seconds)
        if covered:
            outline = np.maximum(np.abs(x), np.abs(y)) - 1.35
            paint = BOARD
        else:
            outline = _DISTANCE[sprite.shape](x, y)
            paint = np.array(sprite.colour, np.float32)
        mask = np.clip(0.5 - outline * sprite.radius, 0, 1)[:, :, None]
        canvas = canvas * (1 - mask) + paint * mask
    canvas += random.standard_normal(canvas.shape, np.float32) * np.float32(behind.noise)
    return np.asarray(np.clip(canvas, 0, 255), dtype=np.uint8)


def _local(sprite: Sprite, seconds: float) -> tuple[Plane, Plane]:
    """Coordinates of every pixel as the sprite sees them: from its centre, turned, in radii."""
    turn = 2 * np.pi * sprite.pace_hz * seconds + sprite.phase
    x = (_COLUMNS - np.float32(sprite.centre[0] + sprite.sway[0] * np.sin(turn))) / np.float32(sprite.radius)
    y = (_ROWS - np.float32(sprite.centre[1] + sprite.sway[1] * np.cos(turn))) / np.float32(sprite.radius)
    angle = sprite.spin * np.sin(turn)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x - sine * y, sine * x + cosine * y
