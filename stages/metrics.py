"""Scores of audio-visual video parsing: how well the heard and the seen events of a clip were found.

Nine numbers at two levels.  A level says what is counted: seconds (`segment`) or maximal runs of
seconds (`event`, found at an intersection over union of 0.5).  The numbers are F1 in percent:

    A, V, AV       heard; seen; heard and seen at once
    Type           the mean of A, V and AV
    Event          heard and seen events counted together
    Ao, Vo         heard but not seen; seen but not heard      (CoLeaF, ECCV 2024)
    Typeo          the mean of Ao, Vo and AV
    Evento         heard-only and seen-only events counted together

`pooling` names how counts become one number; never compare numbers made in different ways:

    official       an F1 per clip and class, averaged over the classes that are predicted or true in the
                   clip, then over clips.  A clip without any such class scores 100.  The protocol of
                   Tian et al., ECCV 2020, used by every published table but the one below.
    micro          counts summed over clips, classes and seconds, then one F1: VALOR's Table 3.
    class-macro    counts summed over clips, an F1 per class, averaged over the classes that occur.

Beware of Ao, Vo and Evento under official pooling: most clips have no event of one modality only, so
predicting nothing at all scores 38, 66 and 27 on LLP's test split, above published results.  Print that
baseline beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from avvp_pipe.stages.blocks.checks import as_bool, require_choice, valid_segments
from avvp_pipe.stages.blocks.event_counts import Counts, event_counts, segment_counts

__all__ = [
    "LEVELS",
    "METRICS",
    "LabelCounts",
    "Pooling",
    "avvp_scores",
    "class_scores",
    "clip_scores",
    "label_counts",
    "scores_of",
]

Pooling = Literal["official", "micro", "class-macro"]

LEVELS = ("segment", "event")
METRICS = ("A", "V", "AV", "Type", "Event", "Ao", "Vo", "Typeo", "Evento")

_COUNTERS = {"segment": segment_counts, "event": event_counts}
# The mean of which three, and the counts of which two: methods of Tian et al. and of CoLeaF.
_MEANS = {"Type": ("A", "V", "AV"), "Typeo": ("Ao", "Vo", "AV")}
_SUMS = {"Event": ("A", "V"), "Evento": ("Ao", "Vo")}

_Floats = NDArray[np.float64]
LabelCounts = Mapping[str, Mapping[str, Counts]]
"""Level -> A, V, AV, Ao, Vo, Event, Evento -> counts (N, C), of which every score is made."""


def avvp_scores(
    pred_audio: ArrayLike,
    pred_visual: ArrayLike,
    true_audio: ArrayLike,
    true_visual: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    pooling: Pooling = "official",
) -> dict[str, dict[str, float]]:
    """Score predictions: {"segment": {"A": 64.2, ...}, "event": {...}}, in percent, keys as in METRICS.

    pred_* and true_*: (N, T, C) bool, or integers 0 and 1, for N >= 1 clips; soft labels are refused.
    lengths: (N,) integers in [1, T], the segments each clip has; later ones never count.  None: all T.

    >>> heard, seen = np.zeros((1, 4, 2), bool), np.zeros((1, 4, 2), bool)
    >>> heard[0, :, 0] = seen[0, :2, 0] = True
    >>> avvp_scores(heard, heard, heard, seen)["segment"]["V"]  # two seconds right, two wrong
    66.66666666666666
    """
    return scores_of(label_counts(pred_audio, pred_visual, true_audio, true_visual, lengths), pooling)


def scores_of(counts: LabelCounts, pooling: Pooling = "official") -> dict[str, dict[str, float]]:
    """`avvp_scores` of counts that are there already, for who wants more than one pooling of them."""
    require_choice("pooling", pooling, Pooling)
    return {
        level: {metric: float(value) for metric, value in scores.items()}
        for level, scores in _reduce(counts, _POOLINGS[pooling]).items()
    }


def clip_scores(
    pred_audio: ArrayLike,
    pred_visual: ArrayLike,
    true_audio: ArrayLike,
    true_visual: ArrayLike,
    lengths: ArrayLike | None = None,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Score every clip by itself: (N,) percent for each level and metric.

    Their means are the official scores, so a bootstrap over clips resamples these.  Arguments as avvp_scores.
    """
    return _reduce(label_counts(pred_audio, pred_visual, true_audio, true_visual, lengths), _per_clip)


def class_scores(
    pred_audio: ArrayLike,
    pred_visual: ArrayLike,
    true_audio: ArrayLike,
    true_visual: ArrayLike,
    lengths: ArrayLike | None = None,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Score every class by itself, over all clips: (C,) percent for each level and metric.

    NaN where a class is neither predicted nor true.  Arguments as avvp_scores.
    """
    return _reduce(label_counts(pred_audio, pred_visual, true_audio, true_visual, lengths), _per_class)


def label_counts(
    pred_audio: ArrayLike,
    pred_visual: ArrayLike,
    true_audio: ArrayLike,
    true_visual: ArrayLike,
    lengths: ArrayLike | None,
) -> LabelCounts:
    """Counts (N, C) of every metric that is not a mean, at both levels.  Arguments as avvp_scores."""
    heard, seen, truly_heard, truly_seen = _checked(
        {
            "pred_audio": pred_audio,
            "pred_visual": pred_visual,
            "true_audio": true_audio,
            "true_visual": true_visual,
        },
        lengths,
    )
    predicted, true = _views(heard, seen), _views(truly_heard, truly_seen)
    counts = {
        level: {view: counter(predicted[view], true[view]) for view in predicted}
        for level, counter in _COUNTERS.items()
    }
    for of_level in counts.values():
        of_level.update({name: of_level[one] + of_level[other] for name, (one, other) in _SUMS.items()})
    return counts


def _views(heard: NDArray[np.bool_], seen: NDArray[np.bool_]) -> dict[str, NDArray[np.bool_]]:
    return {"A": heard, "V": seen, "AV": heard & seen, "Ao": heard & ~seen, "Vo": seen & ~heard}


def _checked(arrays: Mapping[str, ArrayLike], lengths: ArrayLike | None) -> list[NDArray[np.bool_]]:
    """Four (N, T, C) bool arrays of one shape, cleared beyond each clip's length."""
    labels = {name: as_bool(name, array) for name, array in arrays.items()}
    shapes = {name: array.shape for name, array in labels.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 3 for shape in shapes.values()):
        raise ValueError(f"predictions and truth must share one shape (N, T, C), but came as {shapes}")
    clips, segments, _ = shapes["pred_audio"]
    if clips == 0:
        raise ValueError("there is no clip to score; the arrays have shape (0, T, C)")
    valid = valid_segments(lengths, clips=clips, segments=segments)
    if not valid.any(axis=1).all():
        empty = int(np.flatnonzero(~valid.any(axis=1))[0])
        raise ValueError(f"clip {empty} has length 0 and would score 100; leave such clips out")
    return [array & valid[:, :, None] for array in labels.values()]


def _reduce(counts: LabelCounts, pool: Callable[[Counts], _Floats]) -> dict[str, dict[str, _Floats]]:
    """Make percent of counts, add the means, and put the metrics in order."""
    table = {}
    for level, of_level in counts.items():
        scores = {name: 100.0 * pool(count) for name, count in of_level.items()}
        for name, parts in _MEANS.items():
            scores[name] = sum((scores[part] for part in parts), start=np.zeros(())) / len(parts)
        table[level] = {metric: scores[metric] for metric in METRICS}
    return table


def _per_clip(counts: Counts) -> _Floats:
    return _mean_or_one(counts.f1(), axis=1)


def _per_class(counts: Counts) -> _Floats:
    return counts.pooled(axis=0).f1()


def _official(counts: Counts) -> _Floats:
    return np.asarray(_per_clip(counts).mean())


def _micro(counts: Counts) -> _Floats:
    return _mean_or_one(counts.pooled(axis=None).f1().reshape(1), axis=0)


def _class_macro(counts: Counts) -> _Floats:
    return _mean_or_one(_per_class(counts), axis=0)


def _mean_or_one(scores: _Floats, *, axis: int) -> _Floats:
    """Average what is not NaN; where nothing is left, nothing was there and nothing was predicted: 1."""
    known = ~np.isnan(scores)
    count = np.asarray(known.sum(axis=axis))
    total = np.asarray(np.where(known, scores, 0.0).sum(axis=axis))
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


_POOLINGS: dict[str, Callable[[Counts], _Floats]] = {
    "official": _official,
    "micro": _micro,
    "class-macro": _class_macro,
}
