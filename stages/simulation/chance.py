"""Chance: random numbers that depend on what they are for, never on what was drawn before."""

from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def stream(*purpose: str | int) -> np.random.Generator:
    """A generator of its own for every purpose, such as (seed, clip, class).

    >>> stream(0, "a").random() == stream(0, "a").random(), stream(0, "a").random() == stream(0, "b").random()
    (True, False)
    """
    return np.random.Generator(np.random.PCG64(digest(*purpose)))


def digest(*purpose: str | int) -> int:
    """A whole number of 64 bits for every purpose."""
    said = "\x1f".join(str(one) for one in purpose)
    return int.from_bytes(blake2b(said.encode(), digest_size=8).digest(), "big")


def runs(rng: np.random.Generator, seconds: int, *, share: float, longest: int) -> NDArray[np.bool_]:
    """(seconds,) bool: stretches of 1 to `longest` seconds, all equally likely, that cover about `share` of the time.

    Between them lie gaps of at least a second, whose lengths are geometric. share in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"stretches cover a share of the time in [0, 1), but {share = }; choose one below 1")
    mean_gap = (1 + longest) / 2 * (1 - share) / max(share, 1e-9)
    count = 2 * seconds + longest + 1
    lengths = np.empty(2 * count, np.int64)
    lengths[::2] = rng.geometric(min(1.0, 1 / mean_gap), count)
    lengths[1::2] = rng.integers(1, longest + 1, count)
    mask = np.repeat(np.tile(np.array([False, True]), count), np.minimum(lengths, 2 * seconds + longest))
    start = int(rng.integers(0, seconds + longest))  # a clip does not begin at the beginning of a gap
    return np.asarray(mask[start : start + seconds])


def drifting(rng: np.random.Generator, shape: tuple[int, ...], *, memory: float) -> NDArray[np.float64]:
    """Standard normal noise, (T, ...), whose neighbours in time correlate by `memory` in [0, 1): AR(1)."""
    white = rng.standard_normal(shape)
    return np.asarray(np.tensordot(_mixing(shape[0], memory), white, axes=1))


@lru_cache(maxsize=256)
def _mixing(seconds: int, memory: float) -> NDArray[np.float64]:
    """(T, T): what makes an AR(1) series of unit variance out of white noise."""
    lag = np.subtract.outer(np.arange(seconds), np.arange(seconds))
    weights = np.where(lag >= 0, memory ** np.maximum(lag, 0), 0.0) * np.sqrt(1 - memory**2)
    weights[:, 0] = memory ** np.arange(seconds)
    return np.asarray(weights)
