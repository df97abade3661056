"""How strongly a teacher perceives a class, second by second: not always while it is there, and sometimes when not.

truth        . . # # # # # # . .
lost             # # . . # #         drop-outs, in runs of 1 to 3 seconds
leak           # # # . . # # # .     it seems to begin early, or to go on
"""

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.simulation.chance import drifting, runs
from avvp_pipe.stages.simulation.settings import Modality

LONGEST_LOSS, LONGEST_LEAK = 3, 6
RESIDUE = 0.1
"""What is left of the evidence in a drop-out, in gains."""


def perceived(
    rng: np.random.Generator, present: NDArray[np.bool_], settings: Modality, *, gain: float, leak: float
) -> NDArray[np.float64]:
    """(T,) >= 0: evidence of one class in one clip that names it. present (T,) bool: when it is really there."""
    seconds = len(present)
    clear = np.exp(settings.clip_spread * rng.standard_normal())
    level = clear * np.exp(settings.time_spread * drifting(rng, (seconds,), memory=settings.memory))
    lost = runs(rng, seconds, share=settings.lost, longest=LONGEST_LOSS)
    seeming = runs(rng, seconds, share=min(leak * 2 * rng.random(), 0.95), longest=LONGEST_LEAK)
    there = np.where(lost, RESIDUE, 1.0)
    not_there = np.where(seeming, settings.leak_level, 0.0)
    return np.asarray(gain * level * np.where(present, there, not_there))


def distracting(rng: np.random.Generator, seconds: int, settings: Modality, *, gain: float) -> NDArray[np.float64]:
    """(T,) >= 0: evidence, for a while, of a class that is not there."""
    longest = min(LONGEST_LEAK, seconds)
    length = int(rng.integers(1, longest + 1))
    start = int(rng.integers(0, seconds - length + 1))
    found = np.zeros(seconds)
    found[start : start + length] = gain * settings.leak_level * np.exp(settings.clip_spread * rng.standard_normal())
    return found
