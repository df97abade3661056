"""The protocol of LLP written plainly, clip by clip, class by class, second by second.

What the vectorised evaluator must equal (test_metrics.py) and outrun (bench/bench_metrics.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = tuple[int, int, int]
Line = Sequence[bool]


def segment_counts(predicted: Line, true: Line) -> Counts:
    """True positives, false positives and false negatives among the seconds of one class."""
    tp = fp = fn = 0
    for guess, truth in zip(predicted, true, strict=True):
        tp += guess and truth
        fp += guess and not truth
        fn += truth and not guess
    return tp, fp, fn


def events(line: Line) -> list[tuple[int, int]]:
    """Maximal runs of True as (start, stop), stop exclusive."""
    found: list[tuple[int, int]] = []
    start = None
    for second, on in enumerate([*line, False]):
        if on and start is None:
            start = second
        elif not on and start is not None:
            found.append((start, second))
            start = None
    return found


def overlaps(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether intersection over union reaches one half."""
    intersection = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    union = one[1] - one[0] + other[1] - other[0] - intersection
    return intersection >= 0.5 * union


def event_counts(predicted: Line, true: Line) -> Counts:
    """A predicted event is right if some true one overlaps it; a true one missed if no predicted one does."""
    guesses, truths = events(predicted), events(true)
    tp = sum(any(overlaps(guess, truth) for truth in truths) for guess in guesses)
    fn = sum(not any(overlaps(guess, truth) for guess in guesses) for truth in truths)
    return tp, len(guesses) - tp, fn


def clip_f1(counts: Sequence[Counts]) -> float:
    """Mean F1 of the classes that are predicted or true in one clip; 1 if there is none."""
    scores = [2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counts if tp + fp + fn > 0]
    return sum(scores) / len(scores) if scores else 1.0


def clip_views(audio: NDArray[np.bool_], visual: NDArray[np.bool_]) -> dict[str, list[list[bool]]]:
    """What is heard, seen, both, and only one of the two: (T, C) arrays -> a list of classes of seconds."""
    views = {"A": audio, "V": visual, "AV": audio & visual, "Ao": audio & ~visual, "Vo": visual & ~audio}
    return {name: view.T.tolist() for name, view in views.items()}


def official_scores(
    pred_audio: NDArray[np.bool_],
    pred_visual: NDArray[np.bool_],
    true_audio: NDArray[np.bool_],
    true_visual: NDArray[np.bool_],
    lengths: Sequence[int] | None = None,
) -> dict[str, dict[str, float]]:
    """Scores in percent of (N, T, C) arrays, laid out as avvp_scores lays them out."""
    clips = len(pred_audio)
    table: dict[str, dict[str, float]] = {}
    for level, count in (("segment", segment_counts), ("event", event_counts)):
        totals = dict.fromkeys(("A", "V", "AV", "Event", "Ao", "Vo", "Evento"), 0.0)
        for clip in range(clips):
            length = lengths[clip] if lengths is not None else pred_audio.shape[1]
            predicted = clip_views(pred_audio[clip, :length], pred_visual[clip, :length])
            true = clip_views(true_audio[clip, :length], true_visual[clip, :length])
            counts: dict[str, list[Counts]] = {}
            for view in predicted:
                counts[view] = [count(p, t) for p, t in zip(predicted[view], true[view], strict=True)]
            for name, (one, other) in {"Event": ("A", "V"), "Evento": ("Ao", "Vo")}.items():
                counts[name] = [
                    (a[0] + b[0], a[1] + b[1], a[2] + b[2]) for a, b in zip(counts[one], counts[other], strict=True)
                ]
            for name in totals:
                totals[name] += clip_f1(counts[name])
        scores = {name: 100 * total / clips for name, total in totals.items()}
        scores["Type"] = (scores["A"] + scores["V"] + scores["AV"]) / 3
        scores["Typeo"] = (scores["Ao"] + scores["Vo"] + scores["AV"]) / 3
        table[level] = scores
    return table
