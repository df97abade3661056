"""What the arrays of each kind of artifact must look like: axes, dtypes, and which values they may hold.

Axes: N clips, T segments, C classes, S splits, the same throughout one artifact; a small letter stands for any length,
a digit for exactly that. Arrays that are not listed may be there, and are held to nothing but their checksums.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.metadata import ArrayFacts

__all__ = ["Column", "check_shapes", "columns", "soft_name", "wrong_values"]

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int32", "int64")
LABELS_LIMIT_BYTES = 16 * 2**30
"""Of all arrays of labels, decoded: LLP's come to 60 MB."""

Values = Literal["any", "finite", "unit", "present", "threshold", "length"]


@dataclass(frozen=True, slots=True)
class Column:
    """One array of a kind."""

    axes: str
    dtypes: tuple[str, ...]
    values: Values = "any"
    """unit: 0 to 1; present: finite in the segments of clips that did not fail; threshold: not NaN; length: 0 to T."""
    required: bool = True


TEXT, FLAGS = ("string",), ("bool",)
_CLIPS = {"video_ids": Column("N", TEXT), "lengths": Column("N", INTEGERS, "length")}
_WEAK = {"splits": Column("N", TEXT), "weak": Column("NC", FLAGS)}
_STATUS = {"status": Column("N", ("uint8",))}
_DIGESTS = {"video_digests": Column("N", TEXT, required=False)}


def _both(suffix: str, column: Column) -> dict[str, Column]:
    return {f"{modality}{suffix}": column for modality in ("audio", "visual")}


_PREDICTED = {
    **_CLIPS, **_WEAK, **_STATUS, **_both("_hard", Column("NTC", FLAGS)),
    **_both("_probs", Column("NTC", ("float32",), "unit")), "video_probs": Column("NC", ("float32",), "finite"),
}  # fmt: skip

_KINDS: Mapping[str, Mapping[str, Column]] = {
    "dataset": {
        **_CLIPS, **_WEAK, "paths": Column("N", TEXT), "dense": Column("N", ("uint8",)),
        **_both("", Column("NTC", FLAGS)), "audio_visual": Column("NTC", FLAGS),
    },
    "media": {
        **_CLIPS, **_STATUS, "frames": Column("NTdd3", ("uint8", "float32"), "finite"),
        "frame_indices": Column("NT", ("int32",)), "frame_seconds": Column("NT", ("float64",), "present"),
        "audio": Column("Nd", ("int16", *FLOATS), "finite"),
        "audio_samples": Column("N", INTEGERS, required=False), **_DIGESTS,
    },
    "features": {
        **_CLIPS, **_WEAK, **_STATUS, **_both("", Column("NTd", FLOATS, "present", required=False)),
        "motion": Column("NTd", FLOATS, "present", required=False),
        "visual_frames": Column("NTdd", FLOATS, "present", required=False), **_DIGESTS,
    },
    "thresholds": {
        **_both("", Column("C", ("float32",), "threshold")), **_both("_f1", Column("C", FLOATS)),
        **_both("_precision", Column("C", FLOATS, required=False)),
        **_both("_recall", Column("C", FLOATS, required=False)),
        **_both("_curves", Column("4dd", FLOATS, required=False)),  # one a class, or one for all
        **_both("_bootstrap", Column("dC", ("float32",), "threshold", required=False)),
        **_both("_spread", Column("2C", ("float32",), "threshold", required=False)),
    },
    "labels": {
        **_CLIPS, **_WEAK, **_STATUS, **_both("_hard", Column("NTC", FLAGS)),
        **_both("_soft", Column("NTC", ("float32",), "unit")),
        **_both("_logits", Column("NTC", FLOATS, "present", required=False)),
        **_both("_thresholds", Column("C", ("float32",), "threshold", required=False)),
    },
    "parser": {name: replace(column, required=False) for name, column in _PREDICTED.items()},  # none in an imported one
    "predictions": {**_PREDICTED, "weak": Column("NC", FLAGS, required=False)},  # where classes are the parser's too
    "scores": {
        "scores": Column("Sdd", ("float64",)), "splits": Column("S", TEXT),
        "class_counts": Column("S233C", INTEGERS, required=False), "tally": Column("R25C", INTEGERS, required=False),
        "modality_confusion": Column("S44C", INTEGERS, required=False),
        "reliability": Column("S23d", ("float64",), required=False),
        "tally_splits": Column("R", TEXT, required=False), "agreement": Column("224C", INTEGERS, required=False),
    },
}  # fmt: skip


def columns(kind: str, names: tuple[str, ...]) -> dict[str, Column]:
    """The columns of a kind that an artifact with these arrays has; trained weights and texts must be finite."""
    known = _KINDS.get(kind, {})
    found = {name: column for name, column in known.items() if name in names or column.required}
    weights = {name: Column("*", FLOATS + INTEGERS, "finite") for name in names if name.startswith("weights/")}
    texts = {name: Column("Cd", FLOATS, "finite") for name in names if name.startswith(("text_audio/", "text_visual/"))}
    return {**found, **weights, **(texts if kind == "features" else {})}


def check_shapes(artifact: Artifact, kind: str | None = None) -> dict[str, ArrayFacts]:
    """The facts of all listed arrays. Raises StoreError for the first that is missing or has another shape or dtype."""
    names = artifact.array_names()
    wanted = columns(kind or artifact.kind, names)
    if missing := sorted(set(wanted) - set(names)):
        raise StoreError(
            f"{artifact.location} holds no {kind or artifact.kind}: it has no {', '.join(missing)}; "
            f"it has {', '.join(names[:20]) or 'no arrays'}"
        )
    sizes: dict[str, int] = {}
    facts = {name: artifact.facts(name) for name in wanted}
    for name, column in wanted.items():
        _check_one(artifact, name, column, facts[name], sizes)
    classes = artifact.attrs.get("classes")
    if "C" in sizes and not _is_class_list(classes, sizes["C"]):
        raise StoreError(
            f"{artifact.location} has attribute classes {str(classes)[:80]}, not {sizes['C']} different names"
        )
    _check_total(artifact, facts, kind or artifact.kind)
    return facts


def soft_name(artifact: Artifact, modality: str) -> str | None:
    """The array of soft labels, or of a parser's probabilities, of a modality; None where there is none."""
    return next((name for name in (f"{modality}_soft", f"{modality}_probs") if name in artifact), None)


def _check_one(artifact: Artifact, name: str, column: Column, facts: ArrayFacts, sizes: dict[str, int]) -> None:
    where = f"array {name!r} of {artifact.location}"
    if facts.dtype not in column.dtypes:
        raise StoreError(f"{where} holds {facts.dtype}, where {' or '.join(column.dtypes)} is wanted")
    if column.axes == "*":
        return
    if len(facts.shape) != len(column.axes):
        raise StoreError(f"{where} has shape {facts.shape}, where axes {column.axes} are wanted")
    for axis, side in zip(column.axes, facts.shape, strict=True):
        expected = int(axis) if axis.isdigit() else side if axis.islower() else sizes.setdefault(axis, side)
        if side != expected:
            raise StoreError(f"{where} has shape {facts.shape}, but axis {axis} has {expected} elsewhere")


def _is_class_list(classes: object, count: int) -> bool:
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return False
    return len(classes) == count == len(set(classes))


def _check_total(artifact: Artifact, facts: Mapping[str, ArrayFacts], kind: str) -> None:
    total = sum(one.decoded_bytes for one in facts.values())
    if kind == "labels" and total > LABELS_LIMIT_BYTES:
        raise StoreError(
            f"{artifact.location} declares labels of {total} bytes; more than {LABELS_LIMIT_BYTES} are not read at once"
        )


def wrong_values(
    block: NDArray[Any], column: Column, present: NDArray[np.bool_] | None = None, segments: int | None = None
) -> str:
    """What is wrong with some rows of an array, in words, "" where nothing is.

    present: (rows, T), the segments that exist, of clips that could be processed. segments: T.
    """
    if column.values == "length" and segments is not None and ((block < 0) | (block > segments)).any():
        return f"holds lengths outside 0 to {segments}"
    if block.dtype.kind != "f" or column.values == "any":
        return ""
    if column.values == "threshold":
        return "holds NaN" if np.isnan(block).any() else ""
    if column.values == "present" and present is not None:
        return "" if np.isfinite(block[present]).all() else "holds NaN or infinity where there is a segment"
    if not np.isfinite(block).all():
        return "holds NaN or infinity"
    if column.values == "unit" and ((block < 0) | (block > 1)).any():
        return "holds values outside 0 to 1"
    return ""
