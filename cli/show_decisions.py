"""How it is told what was called where: decisions, confusion between modalities, reliability of probabilities."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from avvp_pipe.cli.console import say, table
from avvp_pipe.store import Artifact

MODALITIES = ("audio", "visual")
GATES = {"global": "pooled", "modality": "in that modality"}


def gate_words(gate: Mapping[str, Any]) -> str:
    """How a parser's probabilities became decisions, in words.

    >>> gate_words({"gate": "modality", "gate_threshold": 0.52, "threshold": 0.25, "strict": False})
    'second at least 0.25, clip (in that modality) at least 0.52'
    """
    than = "above" if gate["strict"] else "at least"
    second = f"second {than} {gate['threshold']:g}"
    if gate["gate"] == "none":
        return second
    return f"{second}, clip ({GATES[gate['gate']]}) {than} {gate['gate_threshold']:g}"


def confusions(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Of each split whose modalities are labelled apart, seconds of each true kind (rows) by what they were called."""
    from avvp_pipe.stages.blocks.quality import KINDS

    names, counts = artifact.attrs["classes"], artifact.array("modality_confusion")
    for one, of_split in zip(artifact.attrs["scores"], counts, strict=True):
        if one.get("dense") == "joint":
            continue
        classes = [{"class": name, "counts": of_split[:, :, column].tolist()} for column, name in enumerate(names)]
        yield {"split": one["split"], "kinds": list(KINDS), "all": of_split.sum(axis=2).tolist(), "classes": classes}


def reliabilities(artifact: Artifact) -> Iterator[dict[str, Any]]:
    """Of each split and modality, the bins of [0, 1] that hold a cell: mean probability, share of positives, cells."""
    for one, of_split in zip(artifact.attrs["scores"], artifact.array("reliability"), strict=True):
        found: dict[str, Any] = {"split": one["split"]}
        for modality, (said, true, cells) in zip(MODALITIES, of_split, strict=True):
            size = 1 / len(said)
            found[modality] = [
                {
                    "from": round(place * size, 6),
                    "to": round((place + 1) * size, 6),
                    "said": round(float(said[place]), 6),
                    "found": round(float(true[place]), 6),
                    "cells": int(cells[place]),
                }
                for place in range(len(said))
                if not math.isnan(said[place])
            ]
        if any(found[modality] for modality in MODALITIES):
            yield found


def print_confusion(one: Mapping[str, Any]) -> None:
    """All classes together; a row is what seconds truly are, its cells add up to 100 percent."""
    kinds, lines = one["kinds"], []
    for kind, row in zip(kinds, one["all"], strict=True):
        cells = sum(row)
        shares = [f"{100 * count / cells:.1f}" if cells else "-" for count in row]
        lines.append((kind, str(cells), *shares))
    title = f"{one['split']}, what each second and class truly is, and was called, percent of the row"
    table(title, ("truly", "cells", *kinds), lines)
    say("the same class by class, and how reliable probabilities are: --json\n")
