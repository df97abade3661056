"""What differs between two sets of labels of the same videos: class by class, and clip by clip.

Clips are aligned by their id and classes by their name; only what both have is compared, and what one alone has is
listed. A segment counts as labelled in an artifact where it lies inside the clip as that artifact has it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.rows import block_rows, spans, take_rows
from avvp_pipe.store.schema import soft_name

_Block = tuple[int, tuple[NDArray[Any], NDArray[np.bool_]], tuple[NDArray[Any], NDArray[np.bool_]]]
MODALITIES = ("audio", "visual")
NEEDED = ("video_ids", "lengths", *(f"{modality}_hard" for modality in MODALITIES))


@dataclass(frozen=True, slots=True)
class ClassDiff:
    """One class in one modality, over the clips that A and B share; counts are of segments."""

    modality: str
    name: str
    a: int
    """Segments that A labels."""
    b: int
    only_a: int
    only_b: int
    a_threshold: float | None
    """On logits, may be -inf; None where the artifact has no thresholds."""
    b_threshold: float | None
    soft: float | None
    """Mean absolute difference of the soft labels over segments that lie inside the clip in both; None without them."""

    @property
    def agreement(self) -> float:
        """Intersection over union of the labelled segments, in [0, 1]; 1 where neither labels any."""
        union = self.a + self.only_b
        return (self.a - self.only_a) / union if union else 1.0

    @property
    def same(self) -> bool:
        """Whether labels, thresholds and soft labels are the same on both sides."""
        return not (self.only_a or self.only_b or self.soft) and self.a_threshold == self.b_threshold


@dataclass(frozen=True, slots=True)
class Change:
    """The seconds of one clip in which one class of one modality is labelled by one side alone."""

    modality: str
    name: str
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClipDiff:
    """One clip whose labels differ."""

    video_id: str
    differing: int
    """Labels of segments that differ, over both modalities and all shared classes."""
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class LabelsDiff:
    """Labels of A held against labels of B."""

    shared_clips: int
    clips_only_a: tuple[str, ...]
    clips_only_b: tuple[str, ...]
    classes_only_a: tuple[str, ...]
    classes_only_b: tuple[str, ...]
    classes: tuple[ClassDiff, ...]
    """Every shared class in both modalities, in A's order."""
    clips: tuple[ClipDiff, ...]
    """Every shared clip whose labels differ, the worst first."""


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Shared clips and classes, as places along the axes of A and of B; clips in A's order."""

    ids: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[NDArray[np.intp], NDArray[np.intp]]
    columns: tuple[NDArray[np.intp], NDArray[np.intp]]
    lengths: tuple[NDArray[Any], NDArray[Any]]
    """(shared clips,) valid seconds in A and in B."""


def holds_labels(artifact: Artifact) -> bool:
    """Whether an artifact holds hard labels of clips: labels do, and a parser's predictions."""
    return isinstance(artifact.described.get("classes"), list) and all(name in artifact for name in NEEDED)


def diff_labels(a: Artifact, b: Artifact) -> LabelsDiff:
    """Compare the labels of two artifacts of which `holds_labels` is true. Memory: a block of rows and what differs.

    Raises StoreError where an id or a class occurs twice, or arrays do not fit the clips and classes.
    """
    ids, names = (a.strings("video_ids"), b.strings("video_ids")), (_classes(a), _classes(b))
    rows, columns = _aligned(ids, (a, b), "clip"), _aligned(names, (a, b), "class")
    lengths = _lengths(a)[rows[0]], _lengths(b)[rows[1]]
    pairs = _Pairs(
        tuple(ids[0][row] for row in rows[0]), tuple(names[0][one] for one in columns[0]), rows, columns, lengths
    )
    classes: list[ClassDiff] = []
    changes: dict[int, list[Change]] = {}
    for modality in MODALITIES:
        counts = np.zeros((4, len(pairs.names)), np.int64)
        for start, left, right in _hard_blocks((a, b), modality, pairs):
            counts += [one.sum((0, 1)) for one in (left, right, left & ~right, right & ~left)]
            for row, change in _changes(left, right, modality, pairs.names):
                changes.setdefault(start + row, []).append(change)
        classes += _class_diffs((a, b), modality, pairs, counts)
    return LabelsDiff(
        len(pairs.ids),
        *_only(*ids),
        *_only(*names),
        tuple(classes),
        _worst_first(ClipDiff(pairs.ids[row], _size(found), tuple(found)) for row, found in changes.items()),
    )


def _classes(artifact: Artifact) -> tuple[str, ...]:
    return tuple(str(name) for name in artifact.described["classes"])


def _lengths(artifact: Artifact) -> NDArray[Any]:
    shape, clips = artifact.facts("lengths").shape, artifact.facts("video_ids").shape
    if shape != clips:
        raise StoreError(f"lengths of {artifact.reference} has shape {shape}; wanted one per clip, {clips}")
    return artifact.array("lengths")


def _only(a: Sequence[str], b: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    in_a, in_b = set(a), set(b)
    return tuple(one for one in a if one not in in_b), tuple(one for one in b if one not in in_a)


def _size(changes: Iterable[Change]) -> int:
    return sum(len(change.only_a) + len(change.only_b) for change in changes)


def _worst_first(clips: Iterable[ClipDiff]) -> tuple[ClipDiff, ...]:
    return tuple(sorted(clips, key=lambda clip: (-clip.differing, clip.video_id)))


def _aligned(
    names: tuple[Sequence[str], Sequence[str]], artifacts: tuple[Artifact, Artifact], what: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Places of what both have, in A's order."""
    for side, artifact in zip(names, artifacts, strict=True):
        if len(set(side)) < len(side):
            twice = next(one for one in side if list(side).count(one) > 1)
            raise StoreError(
                f"{artifact.reference} names the {what} {twice!r} twice, so labels cannot be aligned by it"
            )
    places = {one: place for place, one in enumerate(names[1])}
    shared = [(place, places[one]) for place, one in enumerate(names[0]) if one in places]
    first, second = np.array(shared, np.intp).reshape(-1, 2).T
    return first, second


def _checked(artifact: Artifact, name: str) -> int:
    """Seconds of an (N, T, C) array. Raises StoreError where it does not fit the artifact's clips and classes."""
    shape = artifact.facts(name).shape
    clips, classes = artifact.facts("video_ids").shape[0], len(_classes(artifact))
    if len(shape) != 3 or (shape[0], shape[2]) != (clips, classes):
        raise StoreError(
            f"{name} of {artifact.reference} has shape {shape}; "
            f"wanted (clips, seconds, classes) with {clips} clips and {classes} classes"
        )
    return shape[1]


def _blocks(sides: tuple[Artifact, Artifact], names: tuple[str, str], pairs: _Pairs) -> Iterator[_Block]:
    """Blocks of shared clips: their first place, and for each side (rows, T, C) values and (rows, T, 1) what is valid.

    T is the longer of the two; what is added is not valid.
    """
    lengths = [_checked(artifact, name) for artifact, name in zip(sides, names, strict=True)]
    seconds = np.arange(max(lengths))
    arrays = [artifact.lazy(name) for artifact, name in zip(sides, names, strict=True)]
    for start, stop in spans(len(pairs.ids), block_rows(*arrays)):
        both = []
        for side in (0, 1):
            values = take_rows(sides[side], names[side], pairs.rows[side][start:stop])[:, :, pairs.columns[side]]
            values = np.pad(values, ((0, 0), (0, len(seconds) - lengths[side]), (0, 0)))
            valid = seconds < np.minimum(pairs.lengths[side][start:stop, None], lengths[side])
            both.append((values, valid[:, :, None]))
        yield start, both[0], both[1]


def _hard_blocks(
    sides: tuple[Artifact, Artifact], modality: str, pairs: _Pairs
) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[np.bool_]]]:
    name = f"{modality}_hard"
    for start, left, right in _blocks(sides, (name, name), pairs):
        yield start, left[0].astype(bool) & left[1], right[0].astype(bool) & right[1]


def _changes(
    left: NDArray[np.bool_], right: NDArray[np.bool_], modality: str, names: Sequence[str]
) -> Iterator[tuple[int, Change]]:
    """Row of the block and what changed there, from (rows, T, C) labels, by row and class."""
    differing = np.argwhere((left != right).transpose(0, 2, 1)).tolist()
    for (row, column), places in groupby(differing, key=lambda place: (place[0], place[1])):
        seconds = [second for _, _, second in places]
        only_a = tuple(second for second in seconds if left[row, second, column])
        only_b = tuple(second for second in seconds if right[row, second, column])
        yield row, Change(modality, names[column], only_a, only_b)


def _class_diffs(
    sides: tuple[Artifact, Artifact], modality: str, pairs: _Pairs, counts: NDArray[np.int64]
) -> Iterator[ClassDiff]:
    of_a, of_b = (_thresholds(one, modality, pairs.columns[side]) for side, one in enumerate(sides))
    soft = _soft_apart(sides, modality, pairs)
    for place, name in enumerate(pairs.names):
        a, b, only_a, only_b = counts[:, place].tolist()
        yield ClassDiff(modality, name, a, b, only_a, only_b, of_a[place], of_b[place], soft[place])


def _thresholds(artifact: Artifact, modality: str, columns: NDArray[np.intp]) -> list[float | None]:
    name = f"{modality}_thresholds"
    if name not in artifact:
        return [None] * len(columns)
    if artifact.facts(name).shape != (len(_classes(artifact)),):
        raise StoreError(f"{name} of {artifact.reference} has shape {artifact.facts(name).shape}; wanted one per class")
    return [float(value) for value in artifact.array(name)[columns]]


def _soft_apart(sides: tuple[Artifact, Artifact], modality: str, pairs: _Pairs) -> list[float | None]:
    """(C,) mean |a - b| over segments that are valid, and numbers, in both; None where there are none."""
    name_a, name_b = (soft_name(one, modality) for one in sides)
    if name_a is None or name_b is None:
        return [None] * len(pairs.names)
    total, count = np.zeros(len(pairs.names)), np.zeros(len(pairs.names), np.int64)
    for _, left, right in _blocks(sides, (name_a, name_b), pairs):
        with np.errstate(invalid="ignore"):  # infinity minus itself is left out with the other non-numbers
            apart = np.abs(left[0].astype(np.float64) - right[0])
        counted = left[1] & right[1] & np.isfinite(apart)
        total += np.where(counted, apart, 0).sum((0, 1))
        count += counted.sum((0, 1))
    return [one / times if times else None for one, times in zip(total.tolist(), count.tolist(), strict=True)]
