"""The clips of the viewer: which are shown, which of their classes, and what every set of labels says of each second.

    sets (labels, parsers, predictions), truth -> one byte a cell: hard label in the highest bit, soft label of 0 to 127
    a clip's classes: those of its weak label, those that are true, and those that any set calls or thinks likely

Distances are 1 - intersection over union of the labelled cells of a clip, 0 where neither labels anything.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.report.records import MODALITIES, ClipData, SetInfo
from avvp_pipe.stages.rows import JOINT, NONE, OK, SEPARATE, by_lot
from avvp_pipe.store import Artifact, StoreError
from avvp_pipe.store.rows import take_rows
from avvp_pipe.store.schema import soft_name

__all__ = ["HARD", "SOFT", "chosen_rows", "clip_data", "coded", "consensus_distance", "distance"]

HARD, SOFT = 128, 127
"""Bit of the hard label, and what stands for a soft label of 1."""
LIKELY = 64
"""Soft labels from one half on bring a class into the viewer."""
Codes = NDArray[np.uint8]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]


def coded(hard: Mask, soft: NDArray[np.floating[Any]] | None) -> Codes:
    """Hard and soft labels as one byte a cell. Without soft labels the hard ones stand for them.

    >>> coded(np.array([True, False]), np.array([0.5, 1.0])).tolist()
    [192, 127]
    """
    level = hard.astype(np.float32) if soft is None else np.nan_to_num(soft, nan=0.0)
    return np.asarray(hard * np.uint8(HARD) + np.rint(np.clip(level, 0, 1) * SOFT).astype(np.uint8), np.uint8)


def distance(first: Mask, second: Mask) -> NDArray[np.float32]:
    """1 - intersection over union of the cells of every clip: (N, ...) each -> (N,); 0 where both are empty.

    >>> distance(np.array([[True, True], [False, False]]), np.array([[True, False], [False, False]])).tolist()
    [0.5, 0.0]
    """
    axes = tuple(range(1, first.ndim))
    both, either = (first & second).sum(axis=axes), (first | second).sum(axis=axes)
    return np.where(either > 0, 1 - both / np.maximum(either, 1), 0).astype(np.float32)


def consensus_distance(hard: Sequence[Mask], there: Mask) -> NDArray[np.float32]:
    """How far the sets lie from what most of them say: S times (N, ...) and (S, N) -> (N,), a mean over the sets.

    A cell is labelled by most where more than half of the sets that have the clip label it.

    >>> one, two, three = np.array([[True]]), np.array([[True]]), np.array([[False]])
    >>> round(float(consensus_distance([one, two, three], np.ones((3, 1), bool))[0]), 3)
    0.333
    """
    if not len(hard):
        return np.zeros(there.shape[1], np.float32)
    over = (slice(None), *(None,) * (hard[0].ndim - 1))
    votes, sets = np.zeros(hard[0].shape, np.int32), there.sum(axis=0)
    for labels, here in zip(hard, there, strict=True):
        votes += labels & here[over]
    most = 2 * votes > sets[over]
    total = sum((distance(labels, most) * here for labels, here in zip(hard, there, strict=True)), np.zeros(len(sets)))
    return np.asarray(total / np.maximum(sets, 1), np.float32)


def chosen_rows(video_ids: Sequence[str], dense: NDArray[np.uint8], limit: int) -> tuple[Rows, str]:
    """The clips that are shown, in the dataset's order, and in words how they were chosen.

    Those whose seconds are labelled come first; where there are too many, they are drawn by lot, by their ids alone.
    """
    count = len(video_ids)
    if count <= limit:
        return np.arange(count), "all clips" if count > 1 else "the one clip"
    rank = np.empty(count, np.intp)
    rank[by_lot(list(video_ids), "report")] = np.arange(count)
    rows = np.sort(np.lexsort((rank, dense == NONE))[:limit])
    known = int((dense != NONE).sum())
    if known >= limit:
        return rows, f"{limit} of {count} clips, drawn by lot from those whose seconds are labelled ({known})"
    return rows, f"{limit} of {count} clips: all whose seconds are labelled ({known}), and others drawn by lot"


@dataclass(frozen=True, slots=True)
class _Home:
    """The clips that are shown, as the dataset has them, or, without one, the first set."""

    artifact: Artifact
    rows: Rows
    known: Codes
    """(N,) as the dataset's `dense`."""
    segments: int
    chosen: str

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.artifact.attrs["classes"])

    def strings(self, name: str) -> tuple[str, ...]:
        every = self.artifact.strings(name)
        return tuple(every[row] for row in self.rows)

    def taken(self, name: str) -> NDArray[Any]:
        return take_rows(self.artifact, name, self.rows)


@dataclass(frozen=True, slots=True)
class _Layers:
    """The truth, where there is any, and the sets: cells (N, 2, T, C) and status (N,) of each."""

    truth: Codes | None
    sets: tuple[tuple[Codes, Codes], ...]
    known: Codes

    @property
    def cells(self) -> list[Codes]:
        return ([] if self.truth is None else [self.truth]) + [codes for codes, _ in self.sets]

    @property
    def status(self) -> list[Codes]:
        own = [] if self.truth is None else [(self.known != NONE).astype(np.uint8)]
        return own + [status for _, status in self.sets]

    def dispute(self) -> NDArray[np.float32]:
        if not self.sets:
            return np.zeros(len(self.known), np.float32)
        there = np.array([status == OK for _, status in self.sets])
        return consensus_distance([codes >= HARD for codes, _ in self.sets], there)


def clip_data(
    dataset: Artifact | None, sets: Sequence[Artifact], titles: Mapping[str, str], *, limit: int, logits: bool
) -> ClipData | None:
    """Everything that the viewer shows of at most `limit` clips; None where there is neither dataset nor set.

    Raises StoreError where a set has other classes than the clips.
    """
    home = _home(dataset, sets, limit)
    if home is None:
        return None
    truth = None if dataset is None else _truth(home)
    layers = _Layers(truth, tuple(_read(one, home) for one in sets), home.known)
    present = _present(home.taken("weak"), layers.cells)
    clip, column = np.nonzero(present)
    cells = [_cells(codes, clip, column) for codes in layers.cells]
    own = [] if truth is None else [_truth_info()]
    return ClipData(
        video_ids=home.strings("video_ids"),
        classes=home.classes,
        splits=home.strings("splits"),
        lengths=home.taken("lengths").astype(np.uint16),
        known=home.known,
        sets=(*own, *(_info(one, titles, home, logits) for one in sets)),
        status=np.array(layers.status, np.uint8).reshape(len(cells), len(home.rows)),
        distance=_distances(layers),
        dispute=layers.dispute(),
        counts=present.sum(axis=1).astype(np.uint16),
        entry_class=column.astype(np.uint16),
        entry_weak=home.taken("weak")[clip, column],
        cells=np.array(cells, np.uint8).reshape(len(cells), len(clip), 2, home.segments),
        logits=_logits(sets, home, clip, column, first=len(own)) if logits else {},
        chosen=home.chosen,
    )


def _home(dataset: Artifact | None, sets: Sequence[Artifact], limit: int) -> _Home | None:
    base = dataset or next((one for one in sets if "weak" in one), None)
    if base is None or limit < 1:
        return None
    dense = base.array("dense") if dataset is not None else np.zeros(base.facts("lengths").shape[0], np.uint8)
    rows, told = chosen_rows(base.strings("video_ids"), dense, limit)
    segments = base.facts("audio" if dataset is not None else "audio_hard").shape[1]
    return _Home(base, rows, dense[rows].astype(np.uint8), segments, told)


def _truth(home: _Home) -> Codes:
    """(N, 2, T, C); where only what is heard and seen at once is known, that for both."""
    joint, apart = (home.known == JOINT)[:, None, None], (home.known == SEPARATE)[:, None, None]
    at_once = home.taken("audio_visual")
    return coded(np.stack([(joint & at_once) | (apart & home.taken(name)) for name in MODALITIES], axis=1), None)


def _rows_in(artifact: Artifact, home: _Home) -> tuple[Rows, Mask]:
    """The rows of the shown clips in a set, 0 where it does not have one, and whether it does."""
    place = {name: row for row, name in enumerate(artifact.strings("video_ids"))}
    rows = np.array([place.get(name, -1) for name in home.strings("video_ids")], np.intp)
    return np.maximum(rows, 0), rows >= 0


def _columns_in(artifact: Artifact, home: _Home) -> Rows:
    theirs = list(artifact.attrs["classes"])
    if sorted(theirs) != sorted(home.classes):
        raise StoreError(
            f"{artifact.reference} has other classes than {home.artifact.reference}, so that one report cannot show "
            "both; name artifacts that were made from one dataset"
        )
    return np.array([theirs.index(name) for name in home.classes], np.intp)


def _taken(artifact: Artifact, name: str, home: _Home, rows: Rows) -> NDArray[np.generic]:
    """One array of a set, (N, T, C) of the shown clips, in the order of their classes, as many seconds as they have."""
    order = np.unique(rows)
    found = take_rows(artifact, name, order)[np.searchsorted(order, rows)][:, :, _columns_in(artifact, home)]
    short = home.segments - found.shape[1]
    return np.pad(found, ((0, 0), (0, short), (0, 0))) if short > 0 else found[:, : home.segments]


def _read(artifact: Artifact, home: _Home) -> tuple[Codes, Codes]:
    """Cells (N, 2, T, C) and status (N,) of a set."""
    rows, there = _rows_in(artifact, home)
    status = np.where(there, artifact.array("status")[rows], 0).astype(np.uint8)
    parts = []
    for modality in MODALITIES:
        hard = _taken(artifact, f"{modality}_hard", home, rows)
        name = soft_name(artifact, modality)
        parts.append(coded(hard.astype(bool), None if name is None else _taken(artifact, name, home, rows)))  # type: ignore[arg-type]
    seconds = np.arange(home.segments) < artifact.array("lengths")[rows][:, None]
    return np.stack(parts, axis=1) * (seconds & (status == OK)[:, None])[:, None, :, None], status


def _present(weak: Mask, layers: Iterable[Codes]) -> Mask:
    present = weak.copy()
    for codes in layers:
        present |= ((codes >= HARD) | (codes & SOFT >= LIKELY)).any(axis=(1, 2))
    return present


def _cells(codes: Codes, clip: Rows, column: Rows) -> Codes:
    """(E, 2, T) of (N, 2, T, C)."""
    found: Codes = codes[clip, :, :, column]
    return found


def _distances(layers: _Layers) -> NDArray[np.float32]:
    """(S, N) from the truth, of what is both where only that is known."""
    cells, known = layers.cells, layers.known
    found = np.full((len(cells), len(known)), np.nan, np.float32)
    if layers.truth is None:
        return found
    true = layers.truth >= HARD
    for place, (codes, here) in enumerate(zip(cells, layers.status, strict=True)):
        hard = codes >= HARD
        apart, at_once = distance(hard, true), distance(hard.all(axis=1), true[:, 0])
        found[place] = np.where(known == SEPARATE, apart, np.where(known == JOINT, at_once, np.nan))
        found[place][here != OK] = np.nan
    return found


def _logits(
    sets: Sequence[Artifact], home: _Home, clip: Rows, column: Rows, *, first: int
) -> dict[int, NDArray[np.float16]]:
    found = {}
    for place, one in enumerate(sets, start=first):
        if _has_logits(one):
            rows, _ = _rows_in(one, home)
            both = np.stack([_taken(one, f"{modality}_logits", home, rows) for modality in MODALITIES], axis=1)
            with np.errstate(over="ignore"):
                found[place] = both[clip, :, :, column].astype(np.float16)
    return found


def _has_logits(artifact: Artifact) -> bool:
    return all(f"{modality}_{name}" in artifact for modality in MODALITIES for name in ("logits", "thresholds"))


def _info(artifact: Artifact, titles: Mapping[str, str], home: _Home, logits: bool) -> SetInfo:
    reference = str(artifact.reference)
    cuts: tuple[tuple[float | str, ...], ...] = ()
    if logits and _has_logits(artifact):
        order = _columns_in(artifact, home)
        cuts = tuple(
            tuple(_cut(float(cut)) for cut in artifact.array(f"{modality}_thresholds")[order])
            for modality in MODALITIES
        )
    method = str(artifact.attrs.get("method", artifact.name))
    return SetInfo(titles.get(reference, reference), reference, artifact.kind, method, cuts)


def _cut(value: float) -> float | str:
    if math.isinf(value):
        return "never" if value > 0 else "always"
    return value


def _truth_info() -> SetInfo:
    return SetInfo("truth", "", "truth", "", ())
