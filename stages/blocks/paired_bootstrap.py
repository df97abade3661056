"""Whether one method is better than another: clips drawn with replacement, the same ones for both.

    counts of method a, of method b (N clips, C classes)      difference of scores on all clips
    draws (B, N): times that each clip comes           ->     its 95 % interval over draws, and p

Clips, not seconds, are drawn: the seconds of a clip resemble each other. Both methods are scored on the same drawn
clips, so that what makes a clip hard for both cancels out. Scores are made anew of each draw's counts, whatever the
pooling: the mean of clips' F (official), one F of all counts (micro), or the mean of classes' F (class-macro).

What is drawn is clips alone. Where a method is a mean over several trainings, these stay as they are, and how far they
differ is a spread of its own. B. Efron and R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 and 16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.event_counts import Counts

__all__ = ["Difference", "clip_draws", "paired_difference", "resampled_scores"]

Pooling = Literal["official", "micro", "class-macro"]
Floats = NDArray[np.float64]
MEANS = {"Type": ("A", "V", "AV"), "Typeo": ("Ao", "Vo", "AV")}
PERCENTILES = (2.5, 97.5)
DRAWS_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Difference:
    """How far two scores lie apart, in points of percent, and how sure that is."""

    difference: float
    """Of the scores on all clips."""
    low: float
    high: float
    """The 95 % interval: the 2.5th and the 97.5th percentile over draws."""
    p: float
    """Two-sided: twice the share of draws on the other side of no difference, that draw itself counted; at most 1."""


def clip_draws(clips: int, resamples: int, *, seed: int) -> NDArray[np.int64]:
    """How often each of `clips` clips comes in each of `resamples` draws of as many: (resamples, clips)."""
    return np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=resamples)


def resampled_scores(
    counts: Mapping[str, Counts], draws: NDArray[np.int64], pooling: Pooling = "official"
) -> dict[str, Floats]:
    """Every score of one level on every draw: metric -> (B,) percent.

    counts: A, V, AV, Event … -> counts (N, C), as `metrics.label_counts` has them at one level. Metrics that are means
    of others (Type, Typeo) come where their parts do. draws (B, N), of `clip_draws`.
    """
    weigh = {"official": _official, "micro": _micro, "class-macro": _class_macro}[pooling]
    found = {name: 100 * np.concatenate([weigh(one, some) for some in _blocks(draws)]) for name, one in counts.items()}
    for name, parts in MEANS.items():
        if all(part in found for part in parts):
            found[name] = np.mean([found[part] for part in parts], axis=0)
    return found


def paired_difference(ours: Floats, theirs: Floats, *, difference: float) -> Difference:
    """Two methods' scores on the same draws, (B,) each, and the difference of their scores on all clips.

    >>> paired_difference(np.array([3.0, 4.0, 5.0]), np.array([1.0, 1.0, 1.0]), difference=3.0).p
    0.5
    """
    drawn = ours - theirs
    low, high = np.percentile(drawn, PERCENTILES)
    beyond = min(np.count_nonzero(drawn <= 0), np.count_nonzero(drawn >= 0))
    return Difference(float(difference), float(low), float(high), min(1.0, 2 * (int(beyond) + 1) / (len(drawn) + 1)))


def _blocks(draws: NDArray[np.int64]) -> list[Floats]:
    """Few draws at a time, as numbers that multiply quickly."""
    return [draws[start : start + DRAWS_AT_ONCE].astype(np.float64) for start in range(0, len(draws), DRAWS_AT_ONCE)]


def _official(counts: Counts, draws: Floats) -> Floats:
    """The mean over drawn clips of each clip's mean F over the classes that play a part in it; 1 where none does."""
    return np.asarray(draws @ _mean_or_one(counts.f1()) / draws.sum(axis=1))


def _micro(counts: Counts, draws: Floats) -> Floats:
    """One F of the drawn clips' counts, over all classes."""
    pooled = counts.pooled(axis=1)
    return _mean_or_one(_weighted(pooled, draws).f1()[:, None])


def _class_macro(counts: Counts, draws: Floats) -> Floats:
    """The mean over classes of the F of the drawn clips' counts."""
    return _mean_or_one(_weighted(counts, draws).f1())


def _weighted(counts: Counts, draws: Floats) -> Counts:
    parts: tuple[Any, ...] = (counts.true_positives, counts.false_positives, counts.false_negatives)
    return Counts(*(np.rint(draws @ part).astype(np.int64) for part in parts))


def _mean_or_one(scores: Floats) -> Floats:
    """Over the last axis, without what is NaN; 1 where all is."""
    known = ~np.isnan(scores)
    total = np.where(known, scores, 0.0).sum(axis=-1)
    number = known.sum(axis=-1)
    return np.where(number > 0, total / np.maximum(number, 1), 1.0)
