"""Smoothed labels, ours: VALOR's logits after a Gaussian over time, whose widths the validation split chooses.

    logit:     .  3  .  .  4  5  .  .      a teacher loses sight of an event for a second or two
    smoothed:  1  2  2  2  4  4  2  1      neighbours speak for the seconds between

The cheap baseline beside the temporal generators: no network and no pre-training set, one number a class and modality
more than VALOR's thresholds (or one a modality: `smooth_widths="one"`).

| symbol | here | shape | meaning |
|---|---|---|---|
| z[t] | `valor.logits` | (N, T, C) | exp(scale) * cosine of segment and caption |
| s | `class_widths`, `width_of` | (C,), () | standard deviation of the Gaussian, in seconds; 0 leaves z as it is |
| z'[t] | `gaussian` | (N, T, C) | sum_u g(t-u) z[u] / sum_u g(t-u) over valid seconds u; g(d) = exp(-d²/2s²) |
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.modality_f import Levels, levels_of, official_f
from avvp_pipe.stages.blocks.thresholds import calibrate, hard_labels
from avvp_pipe.stages.generators import valor
from avvp_pipe.stages.generators.records import (
    Evidence,
    Fit,
    FitSettings,
    Fitted,
    Generators,
    LabelGenerator,
    Labelled,
    Labeller,
    Logits,
)

PRIOR_CLIPS = 30
"""Of a class's own width: how many clips of its own outweigh all classes together."""
WIDTHS = (0.0, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
"""Seconds, tried on the validation split."""
REACH = 4
"""Standard deviations beyond which a neighbour counts for nothing."""


def gaussian(logits: NDArray[Any], widths: NDArray[np.floating[Any]] | float) -> NDArray[np.float32]:
    """Weighted mean of each second's neighbourhood: (N, T, C) -> (N, T, C) float32.

    widths: seconds >= 0, one for all classes or (C,). NaN (padding, failed clips) neither speaks nor is filled in;
    the weights of what is left are brought to a sum of 1, so that a constant stays what it is up to the ends.
    A second's value depends on its own clip alone, to the last bit, and not on how much padding follows.

    >>> gaussian(np.array([[[0.0], [1.0], [0.0], [np.nan]]]), 0.75).round(2).ravel()
    array([0.29, 0.55, 0.29,  nan], dtype=float32)
    """
    width = np.atleast_1d(np.asarray(widths, np.float64))
    known = ~np.isnan(logits)
    values = np.where(known, logits, 0.0).astype(np.float64)
    total, weight = values.copy(), known.astype(np.float64)
    for distance in range(1, min(int(np.ceil(REACH * width.max())), logits.shape[1] - 1) + 1):
        share = _weight(distance, width)
        for to, of in ((np.s_[:, distance:], np.s_[:, :-distance]), (np.s_[:, :-distance], np.s_[:, distance:])):
            total[to] += share * values[of]
            weight[to] += share * known[of]
    with np.errstate(invalid="ignore"):
        return np.where(known, total / weight, np.nan).astype(np.float32)


def _weight(distance: int, width: NDArray[np.float64]) -> NDArray[np.float64]:
    """exp(-d²/2s²), and 0 beyond REACH standard deviations (everywhere but at 0 where the width is 0)."""
    near = distance <= np.ceil(REACH * width)
    return np.where(near, np.exp(-(distance**2) / (2 * np.where(near, width, 1.0) ** 2)), 0.0)


def width_of(
    logits: NDArray[np.float32],
    truth: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    lengths: NDArray[Any],
    *,
    widths: Sequence[float] = WIDTHS,
) -> float:
    """The width, in seconds, at which labels of one modality have the best official segment F.

    logits (M, T, C) unsmoothed, truth (M, T, C), weak (M, C), lengths (M,). Per-class thresholds are fitted anew at
    each width. Of equal scores the least smoothing wins.
    """
    found = [official_f(_levels(logits, truth, weak, lengths, width).segment) for width in widths]
    return float(widths[int(np.argmax(found))])


def class_widths(
    logits: NDArray[np.float32],
    truth: NDArray[np.bool_],
    weak: NDArray[np.bool_],
    lengths: NDArray[Any],
    *,
    widths: Sequence[float] = WIDTHS,
) -> NDArray[np.float64]:
    """The width of every class, (C,) seconds: where the mean of its segment and event F, over all clips, is best.

    A class's scores are averaged with those of all classes, which count as `PRIOR_CLIPS` clips: a class of few clips
    gets the width that suits most. Arguments as in `width_of`.
    """
    table = np.empty((len(widths), logits.shape[2]))
    for row, width in enumerate(widths):
        levels = [counts.pooled(axis=0).f1() for counts in _levels(logits, truth, weak, lengths, width)]
        table[row] = np.nan_to_num(np.mean(levels, axis=0))
    clips = weak.sum(axis=0)
    shrunk = clips * table + PRIOR_CLIPS * table.mean(axis=1, keepdims=True)
    best: NDArray[np.float64] = np.asarray(widths, np.float64)[shrunk.argmax(axis=0)]
    return best


def _levels(
    logits: NDArray[np.float32], truth: NDArray[np.bool_], weak: NDArray[np.bool_], lengths: NDArray[Any], width: float
) -> Levels:
    """Segments and events, found and missed, of each clip that has logits: (M', C)."""
    smoothed = gaussian(logits, width)
    cuts = calibrate(smoothed, truth, weak, lengths=lengths).thresholds
    there = ~np.isnan(logits).all(axis=(1, 2))
    within = (np.arange(logits.shape[1]) < lengths[:, None])[:, :, None]
    called, true = (hard_labels(smoothed, cuts, weak) & within)[there], (truth & within)[there]
    return levels_of(called, true)


def fit(evidence: Evidence, labelled: Labelled, generators: Generators, settings: FitSettings) -> Fit:
    """The widths of each modality. The logits are not cross-fitted, as little as thresholds are."""
    logits, lengths = valor.logits(evidence), evidence.features.lengths
    choose = width_of if settings.smooth_widths == "one" else class_widths
    fitted = {
        f"{name}_widths": np.broadcast_to(
            choose(getattr(logits, name), getattr(labelled, name), evidence.weak, lengths), evidence.weak.shape[1]
        ).copy()
        for name in logits._fields
    }
    return Fit(fitted, labeller(generators, fitted)(evidence))


def labeller(generators: Generators, fitted: Fitted) -> Labeller:
    """Smooth by the fitted widths: `audio_widths` and `visual_widths`, (C,) seconds."""

    def logits(evidence: Evidence) -> Logits:
        found = valor.logits(evidence)
        return Logits(*(gaussian(values, fitted[f"{name}_widths"]) for name, values in found._asdict().items()))

    return logits


METHOD = LabelGenerator(
    name="smooth",
    paper="ours",
    prompts="valor",
    labeller=labeller,
    fit=fit,
)
