"""What `stack` looks at for one class in one second: columns of numbers with names, each the same for every class.

    TEACHER: now                    its logit in that second, in units of that class (`Units`)
    TEACHER: t-2 … t+2              its neighbours; beyond the clip's ends, the first or the last second
    TEACHER: mean, max, min         over the clip's seconds
    TEACHER: smooth                 after a Gaussian over time (`smooth.py`)
    TEACHER: bridge                 the lesser of the loudest so far and the loudest from here on: high in a gap between
                                    two seconds of evidence, where an event most likely goes on
    other TEACHER: smooth, mean     of the other modality: what is heard is often seen
    labels                          logarithm of the number of the clip's weak labels: an only label must be somewhere
    named                           whether the weak label has the class; where it is no filter (`weak_filter`)

A name says all that is needed to compute its column, so that a model is a list of names with weights.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.checks import valid_segments
from avvp_pipe.stages.generators.smooth import gaussian

Floats = NDArray[np.float64]

KINDS = ("now", "near", "mean", "max", "min", "smooth", "bridge", "other-smooth", "other-mean", "labels")
"""As in the parameter `stack_inputs`; all of them unless some are left out."""
NEAR = ("t-2", "t-1", "t+1", "t+2")
WIDTH = 1.5
"""Standard deviation of the Gaussian, in seconds."""
PRIOR_SECONDS = 200.0
"""Of a class's units: how many seconds of its own clips outweigh all clips."""
_OF_KIND: Mapping[str, tuple[str, ...]] = {"near": NEAR}


@dataclass(frozen=True, slots=True)
class Units:
    """Zero and unit of each class's logits from one teacher, so that one weight serves all classes."""

    centre: Floats
    """(C,)."""
    scale: Floats
    """(C,), above 0."""


@dataclass(frozen=True, slots=True)
class Cells:
    """All that columns are made of, for one modality of N clips."""

    own: Mapping[str, Floats]
    """Teacher -> (N, T, C) logits of this modality in units of their class; any value where not valid."""
    other: Mapping[str, Floats]
    """Likewise of the other modality."""
    valid: NDArray[np.bool_]
    """(N, T) the clip's seconds, which come first."""
    weak: NDArray[np.bool_]
    """(N, C)."""


def names_of(teachers: Sequence[str], kinds: Sequence[str] = KINDS) -> tuple[str, ...]:
    """The names of all columns of these teachers.

    >>> names_of(["static"], ["now", "other-mean", "labels"])
    ('static: now', 'other static: mean', 'labels')
    """
    own = [what for kind in kinds if kind != "labels" and not kind.startswith("other-") for what in _whats(kind)]
    other = [kind.removeprefix("other-") for kind in kinds if kind.startswith("other-")]
    names = [f"{teacher}: {what}" for teacher in teachers for what in own]
    names += [f"other {teacher}: {what}" for teacher in teachers for what in other]
    return (*names, "labels") if "labels" in kinds else tuple(names)


def kinds_of(text: str) -> tuple[str, ...]:
    """The kinds in the parameter `stack_inputs`: `all`, or names between commas.

    Raises ValueError naming those there are.
    """
    if text == "all":
        return KINDS
    asked = [kind.strip() for kind in text.split(",")]
    if strange := [kind for kind in asked if kind not in KINDS]:
        raise ValueError(f"stack_inputs has {strange[0]!r}; there are all, or some of {','.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in asked)


def units_of(logits: NDArray[Any], weak: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Units:
    """Mean and standard deviation of each class's logits over the clips that name it.

    logits (N, T, C), weak (N, C), valid (N, T). All clips together count as `PRIOR_SECONDS` seconds beside those that
    name the class, so that a class of few clips, or none, has units too.
    """
    share = PRIOR_SECONDS / max(int(valid.sum()), 1)
    weights = (weak[:, None, :] + share) * valid[:, :, None]
    values = np.where(valid[:, :, None], logits, 0.0).astype(np.float64)
    total = np.maximum(weights.sum(axis=(0, 1)), np.finfo(np.float64).tiny)
    centre = (weights * values).sum(axis=(0, 1)) / total
    spread = np.sqrt((weights * (values - centre) ** 2).sum(axis=(0, 1)) / total)
    return Units(centre, np.where(spread > 0, spread, 1.0))


def in_units(logits: NDArray[Any], units: Units, valid: NDArray[np.bool_]) -> Floats:
    """(logit - centre) / scale, and 0 where not valid. (N, T, C) -> (N, T, C)."""
    return np.where(valid[:, :, None], (logits - units.centre) / units.scale, 0.0)


def valid_of(logits: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.bool_]:
    """(N, T): seconds within the clips' lengths (N,), of clips that have logits (N, T, C)."""
    there = valid_segments(lengths, clips=logits.shape[0], segments=logits.shape[1])
    return np.asarray(there & ~np.isnan(logits).any(axis=2))


def column(name: str, cells: Cells) -> Floats:
    """One column: an array that broadcasts to (N, T, C).

    Raises ValueError where the name is not one of `names_of`, or of a teacher that `cells` has not.
    """
    if name == "labels":
        return np.asarray(np.log(np.maximum(cells.weak.sum(axis=1), 1)))[:, None, None]
    if name == "named":
        return cells.weak[:, None, :].astype(np.float64)
    who, _, what = name.partition(": ")
    of, teacher = (cells.other, who.removeprefix("other ")) if who.startswith("other ") else (cells.own, who)
    if teacher not in of:
        raise ValueError(f"no teacher {teacher!r} for the input {name!r}; there are {', '.join(of)}")
    if what.startswith("t"):
        return _neighbour(of[teacher], cells.valid, int(what[1:]))
    try:
        return _COLUMNS[what](of[teacher], cells.valid)
    except KeyError:
        raise ValueError(f"no input {name!r}; what there is of a teacher is {', '.join((*_COLUMNS, *NEAR))}") from None


def _whats(kind: str) -> tuple[str, ...]:
    return _OF_KIND.get(kind, (kind,))


def _neighbour(values: Floats, valid: NDArray[np.bool_], distance: int) -> Floats:
    last = np.maximum(valid.sum(axis=1), 1)[:, None] - 1
    place = np.clip(np.arange(values.shape[1]) + distance, 0, last)
    return np.take_along_axis(values, place[:, :, None], axis=1)


def _mean(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    seconds = np.maximum(valid.sum(axis=1), 1)[:, None, None]
    return np.asarray(np.where(valid[:, :, None], values, 0.0).sum(axis=1, keepdims=True) / seconds)


def _max(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    return _finite(np.where(valid[:, :, None], values, -np.inf).max(axis=1, keepdims=True))


def _min(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    return -_max(-values, valid)


def _smooth(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    return np.nan_to_num(gaussian(np.where(valid[:, :, None], values, np.nan), WIDTH)).astype(np.float64)


def _bridge(values: Floats, valid: NDArray[np.bool_]) -> Floats:
    heard = np.where(valid[:, :, None], values, -np.inf)
    so_far = np.maximum.accumulate(heard, axis=1)
    from_here = np.maximum.accumulate(heard[:, ::-1], axis=1)[:, ::-1]
    return _finite(np.minimum(so_far, from_here))


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, 0.0)


_COLUMNS: dict[str, Callable[[Floats, NDArray[np.bool_]], Floats]] = {
    "now": lambda values, valid: values,
    "mean": _mean,
    "max": _max,
    "min": _min,
    "smooth": _smooth,
    "bridge": _bridge,
}
