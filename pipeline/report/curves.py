"""Curves: F1 over the threshold of every class with the chosen point, and how trainings went."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.report.records import MODALITIES, ClassCurve, Curves, History, Percent
from avvp_pipe.store import Artifact

__all__ = ["curves_of", "history_of", "thinned"]

POINTS = 60
"""Of a drawn curve."""
EPOCHS = 200
HISTORY = "history/"
NO_QUANTITY = ("epoch", "rate")
Floats = NDArray[np.floating[Any]]


def thinned(x: Floats, y: Floats, points: int = POINTS) -> tuple[Floats, Floats]:
    """At most `points` + 2 points of a curve, of each stretch of x the highest: its shape and its best point are kept.

    x (K,) in any order, y (K,); what is not finite is left out.

    >>> thinned(np.array([0.0, 1, 2, 3]), np.array([1.0, 5, 2, 0]), points=2)
    (array([0., 1., 2., 3.]), array([1., 5., 2., 0.]))
    """
    known = np.isfinite(x) & np.isfinite(y)
    order = np.argsort(x[known], kind="stable")
    x, y = x[known][order], y[known][order]
    if len(x) <= points + 2:
        return x, y
    low, high = float(x[0]), float(x[-1])
    place = np.minimum(((x - low) / max(high - low, 1e-12) * points).astype(np.intp), points - 1)
    best = np.lexsort((-y, place))
    first = best[np.unique(place[best], return_index=True)[1]]
    kept = np.unique(np.concatenate([[0], first, [len(x) - 1]]))
    return x[kept], y[kept]


def curves_of(thresholds: Artifact, title: str) -> Curves:
    """The thresholds of one method, class by class; one line for all where it has one threshold."""
    attrs, names = thresholds.attrs, list(thresholds.attrs["classes"])
    facts = [f"{attrs.get('clips', '?')} clips", str(attrs.get("mode", "")), str(attrs.get("source", ""))]
    found = [curve for modality in MODALITIES if modality in thresholds for curve in _of(thresholds, modality, names)]
    percentiles = tuple(attrs.get("bootstrap", {}).get("percentiles", ()))
    return Curves(title, str(thresholds.reference), ", ".join(filter(None, facts)), percentiles, tuple(found))


def _of(thresholds: Artifact, modality: str, names: list[str]) -> list[ClassCurve]:
    cuts = thresholds.array(modality)
    achieved = {
        name: thresholds.array(f"{modality}_{name}")
        if f"{modality}_{name}" in thresholds
        else np.full(len(cuts), np.nan)
        for name in ("f1", "precision", "recall")
    }
    table = thresholds.array(f"{modality}_curves") if f"{modality}_curves" in thresholds else None
    spread = thresholds.array(f"{modality}_spread") if f"{modality}_spread" in thresholds else None
    one_for_all = table is not None and table.shape[1] == 1 and len(names) > 1
    columns = [0] if one_for_all else range(len(names))
    found = []
    for column in columns:
        x, y = (np.empty(0), np.empty(0)) if table is None else thinned(table[0, column], table[3, column])
        limits = None if spread is None else (float(spread[0, column]), float(spread[1, column]))
        mine = {name: None if one_for_all else _percent(values[column]) for name, values in achieved.items()}
        if one_for_all and len(y):
            mine["f1"] = _percent(float(y.max()))
        found.append(
            ClassCurve(
                "all classes" if one_for_all else names[column],
                modality,
                tuple(map(float, x)),
                tuple(100 * float(value) for value in y),
                float(cuts[column]),
                mine["f1"],
                mine["precision"],
                mine["recall"],
                limits,
            )
        )
    return found


def _percent(share: float) -> Percent:
    return None if math.isnan(share) else 100 * float(share)


def history_of(artifact: Artifact, title: str) -> History | None:
    """How the training of a generator or a parser went; None where nothing was kept of it."""
    names = [name for name in artifact.array_names() if name.startswith(HISTORY)]
    values = {name.removeprefix(HISTORY): artifact.array(name) for name in names}
    epochs = values.get("epoch")
    if epochs is None or not len(epochs):
        return None
    kept = np.unique(np.linspace(0, len(epochs) - 1, min(len(epochs), EPOCHS)).astype(np.intp))
    series = {
        name: tuple(None if math.isnan(value) else float(value) for value in column[kept])
        for name, column in values.items()
        if name not in NO_QUANTITY
    }
    best, selected = artifact.attrs.get("best_epoch"), str(artifact.attrs.get("selected_by") or "")
    return History(
        title,
        str(artifact.reference),
        tuple(float(value) for value in epochs[kept]),
        _first(series, lambda name: not name.startswith("val_"), ("loss",)),
        _first(series, lambda name: name.startswith("val_"), (selected, "val_A", "val_V", "val_AV", "val_Type")),
        None if best is None else int(best),
        selected,
    )


def _first(series: dict[str, tuple[Percent, ...]], wanted: Any, first: tuple[str, ...], limit: int = 6) -> Any:
    """So many quantities as can be told apart in one chart, the most telling first; those without a value left out."""
    names = [name for name in series if wanted(name) and any(value is not None for value in series[name])]
    return {name: series[name] for name in sorted(names, key=lambda name: (name not in first, name))[:limit]}
