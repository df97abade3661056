"""What happens when: the timeline of one clip, drawn at random, from which both the video and its labels follow.

second      0  1  2  3  4  5  6  7  8  9
Bell seen         #  #  .  #  #                 '.': hidden for a second, and still labelled, as annotators
Bell heard        #  #  #  .  .  #  #               of real video do through a short occlusion
look-alike  *                          *        a glimpse of somebody else, never labelled
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from avvp_pipe.stages.datasets.records import Event
from avvp_pipe.stages.datasets.rendered.cast import Character

Sense = Literal["heard", "seen"]
GAP_SECONDS = 3
"""Least silence between two events of a class: longer than any drop-out, so that context can tell them apart."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One class heard, or seen, over a stretch of whole seconds [onset, offset)."""

    name: str
    sense: Sense
    onset: int
    offset: int
    dropped: tuple[int, ...] = ()
    """Seconds in which its evidence is hidden or drowned out."""
    lookalike: bool = False
    """Somebody else who resembles the class; no label."""
    labelled: bool = True


@dataclass(frozen=True, slots=True)
class Script:
    """The whole clip."""

    seconds: int
    happenings: tuple[Happening, ...]

    def events(self, sense: Sense) -> tuple[Event, ...]:
        """What is heard or seen, as an annotator writes it down."""
        return tuple(
            Event(one.name, one.onset, one.offset)
            for one in self.happenings
            if one.sense == sense and not one.lookalike and one.labelled
        )


def target_script(cast: Sequence[Character], random: np.random.Generator, *, seconds: int = 10) -> Script:
    """One to three classes; each heard and seen (with a lag of up to a second), only heard, or only seen."""
    names = _pick(cast, 1 + random.choice(3, p=[0.4, 0.4, 0.2]), random)
    happenings: list[Happening] = []
    for name in names:
        how = random.choice(["both", "heard", "seen"], p=[0.6, 0.22, 0.18])
        stretches, lag = _stretches(seconds, random), int(random.integers(-1, 2))
        for onset, offset in stretches:
            if how != "seen":
                happenings.append(_happening(name, "heard", onset, offset, random))
            if how != "heard":
                start, stop = max(onset + lag, 0), min(offset + lag, seconds)
                happenings.append(_happening(name, "seen", start, stop, random))
    return Script(seconds, (*happenings, *_glimpses(names, happenings, seconds, random)))


def pretrain_script(cast: Sequence[Character], random: np.random.Generator, *, seconds: int) -> Script:
    """One to three classes, labelled where heard and seen at once; beside them others that are only one of both."""
    names = _pick(cast, 2 + random.choice(3, p=[0.4, 0.4, 0.2]), random)
    happenings: list[Happening] = []
    for number, name in enumerate(names):
        once = number > 0 and random.random() < 0.4
        senses: tuple[Sense, ...] = ("heard", "seen")
        if once:
            senses = (senses[random.integers(2)],)
        for onset, offset in _stretches(seconds, random):
            happenings += [_happening(name, sense, onset, offset, random, labelled=not once) for sense in senses]
    return Script(seconds, (*happenings, *_glimpses(names, happenings, seconds, random)))


def _pick(cast: Sequence[Character], count: int, random: np.random.Generator) -> list[str]:
    return [cast[index].name for index in random.choice(len(cast), count, replace=False)]


def _stretches(seconds: int, random: np.random.Generator) -> list[tuple[int, int]]:
    """One event, or two with a gap that no drop-out has."""
    length = int(random.integers(4, 10))
    onset = int(random.integers(0, seconds - length + 1))
    found = [(onset, onset + length)]
    room = seconds - (onset + length) - GAP_SECONDS
    if room >= 2 and random.random() < 0.5:
        found.append((seconds - int(random.integers(2, room + 1)), seconds))
    return found


def _happening(
    name: str, sense: Sense, onset: int, offset: int, random: np.random.Generator, *, labelled: bool = True
) -> Happening:
    """With, in most events that are long enough, one or two drop-outs of a second or two inside it."""
    dropped: set[int] = set()
    inside = range(onset + 1, offset - 1)
    for _ in range(int(random.choice([0, 1, 2], p=[0.15, 0.45, 0.4]))):
        if len(inside):
            start = int(random.choice(inside))
            wanted = {second for second in range(start, start + int(random.integers(1, 3))) if second in inside}
            # Two drop-outs do not grow into a gap.
            if not {second + step for second in wanted for step in (-1, 0, 1)} & dropped:
                dropped |= wanted
    return Happening(name, sense, onset, offset, tuple(sorted(dropped)), labelled=labelled)


def _glimpses(
    names: Sequence[str], happenings: Sequence[Happening], seconds: int, random: np.random.Generator
) -> list[Happening]:
    """For a second, somebody who resembles a class of the clip while that class is not there."""
    found = []
    for name in names:
        for sense in ("heard", "seen"):
            busy = {
                s for one in happenings if (one.name, one.sense) == (name, sense) for s in range(one.onset, one.offset)
            }
            free = [second for second in range(seconds) if second not in busy]
            if free and random.random() < 0.5:
                second = int(random.choice(free))
                found.append(Happening(name, sense, second, second + 1, lookalike=True))
    return found
