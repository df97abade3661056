"""What really happens in a clip, where annotations say less.

Clips with weak labels only borrow, for each class, the events that a labelled clip has of that class. Clips labelled
only where an event is heard and seen at once go on being heard, or seen, around that, as UnAV-100's videos do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.simulation.chance import digest, runs, stream
from avvp_pipe.stages.simulation.names import VOICES, meaning
from avvp_pipe.stages.simulation.truth import ClipTruth

OFF_SCREEN, OFF_SCREEN_VOICE, SILENT = 0.25, 0.4, 0.3
"""Mean share of a clip's other seconds in which a class is heard only (a voice: more often), or seen only."""
LONGEST = 6
"""Seconds of such a stretch, at most."""


@dataclass(frozen=True, slots=True)
class Donors:
    """M labelled clips that lend their events."""

    lengths: NDArray[np.integer[Any]]
    """(M,)."""
    audio: NDArray[np.bool_]
    """(M, T, C)."""
    visual: NDArray[np.bool_]
    """(M, T, C)."""
    weak: NDArray[np.bool_]
    """(M, C)."""
    keys: NDArray[np.uint64]
    """(M,) made of their ids."""


def donors(
    video_ids: Sequence[str],
    lengths: NDArray[np.integer[Any]],
    audio: NDArray[np.bool_],
    visual: NDArray[np.bool_],
    weak: NDArray[np.bool_],
) -> Donors:
    """M labelled clips, ready to lend: lengths (M,), audio and visual (M, T, C), weak (M, C)."""
    keys = np.array([digest("donor", name) for name in video_ids], np.uint64)
    return Donors(lengths, audio, visual, weak, keys)


def borrowed(
    video_id: str, seconds: int, weak: NDArray[np.bool_], classes: Sequence[str], lenders: Donors, *, seed: int
) -> ClipTruth:
    """Events of a clip of which only the classes, weak (C,), are known.

    For each class the donor is the one whose id, mixed with the clip's, gives the lowest number: the choice does not
    depend on the order of donors, and changes only where the chosen one is taken away. A class that no donor has is
    there throughout. A donor of another length is stretched.
    """
    heard, seen = (np.zeros((seconds, len(classes)), np.bool_) for _ in range(2))
    for row in np.flatnonzero(weak).tolist():
        possible = np.flatnonzero(lenders.weak[:, row])
        if not len(possible):
            heard[:, row] = seen[:, row] = True
            continue
        own = np.uint64(digest(seed, video_id, classes[row]))
        donor = int(possible[np.argmin(_scrambled(lenders.keys[possible] ^ own))])
        places = np.arange(seconds) * int(lenders.lengths[donor]) // max(seconds, 1)
        heard[:, row] = lenders.audio[donor, places, row]
        seen[:, row] = lenders.visual[donor, places, row]
    return ClipTruth(video_id, heard, seen)


def extended(video_id: str, both: NDArray[np.bool_], classes: Sequence[str], *, seed: int) -> ClipTruth:
    """Events of a clip of which is known what is heard and seen at once, both (T, C): just there they are both.

    In other seconds the same classes are heard only, or seen only, for a while.
    """
    heard, seen = both.copy(), both.copy()
    for row in np.flatnonzero(both.any(axis=0)).tolist():
        rng, rest = stream(seed, video_id, "hidden", classes[row]), ~both[:, row]
        voice = bool(meaning(classes[row]).sounds & VOICES)
        shares = 2 * rng.random(2) * (OFF_SCREEN_VOICE if voice else OFF_SCREEN, SILENT)
        off_screen, silent = (rest & runs(rng, len(both), share=share, longest=LONGEST) for share in shares.tolist())
        heard[:, row] |= off_screen
        seen[:, row] |= silent & ~off_screen
    return ClipTruth(video_id, heard, seen)


def _scrambled(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of the result depends on every bit given: the end of splitmix64 (Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))
