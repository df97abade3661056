"""Who plays in the rendered world: eighteen classes, each with something to see and something to hear.

Looks share shapes and colours with one another (a red disc, a red square, a blue disc), so that neither alone
tells a class; the combinations that no class has are used as look-alikes.
"""

from dataclasses import dataclass
from typing import Literal

Shape = Literal["disc", "ring", "square", "triangle", "diamond", "cross", "star", "bars"]
Voice = Literal["strike", "tone", "sweep", "clicks", "noise"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 48, 49),
    "orange": (235, 140, 40),
    "yellow": (240, 214, 70),
    "green": (60, 170, 80),
    "teal": (40, 180, 185),
    "blue": (60, 90, 215),
    "purple": (150, 70, 190),
    "white": (238, 238, 238),
    "brown": (130, 85, 45),
}
SHAPES: tuple[Shape, ...] = ("disc", "ring", "square", "triangle", "diamond", "cross", "star", "bars")


@dataclass(frozen=True, slots=True)
class Character:
    """One class of the world."""

    name: str
    shape: Shape
    colour: str
    voice: Voice
    low_hz: float
    """Pitch, or the lower end of a sweep or a band of noise."""
    high_hz: float
    """Upper end of a sweep or band; for tones and strikes the strongest overtone."""
    rate_hz: float
    """How often it strikes, clicks, sweeps or swells."""


SHARED = (
    Character("Bell", "triangle", "yellow", "strike", 880, 2400, 1.5),
    Character("Drum", "disc", "red", "strike", 90, 180, 3.0),
    Character("Siren", "square", "red", "sweep", 600, 1200, 0.8),
    Character("Clock", "ring", "white", "clicks", 1800, 3200, 2.0),
    Character("Cricket", "cross", "green", "tone", 4500, 4700, 22.0),
    Character("Engine", "square", "brown", "tone", 70, 210, 14.0),
    Character("Flute", "bars", "blue", "tone", 660, 1320, 5.0),
    Character("Rain", "disc", "blue", "noise", 900, 6000, 0.0),
    Character("Whistle", "ring", "orange", "sweep", 2100, 2500, 9.0),
    Character("Kettle", "diamond", "teal", "noise", 3800, 5200, 3.0),
    Character("Telephone", "diamond", "red", "tone", 1000, 1300, 11.0),
)
TARGET_ONLY = (Character("Frog", "disc", "green", "sweep", 180, 420, 3.0),)
PRETRAIN_ONLY = (
    Character("Bird", "star", "yellow", "sweep", 2600, 4600, 4.0),
    Character("Hammer", "cross", "purple", "strike", 320, 900, 1.2),
    Character("Violin", "bars", "brown", "tone", 440, 880, 6.0),
    Character("Fan", "star", "white", "noise", 120, 800, 8.0),
    Character("Horn", "square", "orange", "tone", 220, 277, 0.0),
    Character("Wave", "bars", "teal", "noise", 200, 1800, 0.6),
)
TARGET: tuple[Character, ...] = tuple(sorted(SHARED + TARGET_ONLY, key=lambda one: one.name))
"""The twelve classes of the target set."""
PRETRAIN: tuple[Character, ...] = tuple(sorted(SHARED + PRETRAIN_ONLY, key=lambda one: one.name))
"""The seventeen classes of the pre-training set: eleven of the target's and six of its own."""
EVERYONE: tuple[Character, ...] = tuple(sorted(SHARED + TARGET_ONLY + PRETRAIN_ONLY, key=lambda one: one.name))
CHARACTERS: dict[str, Character] = {one.name: one for one in EVERYONE}
TAKEN: frozenset[tuple[str, str]] = frozenset((one.shape, one.colour) for one in EVERYONE)
"""Shape and colour of every class; other combinations belong to nobody."""
