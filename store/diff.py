"""What differs between two artifacts of a kind: how they were made, why, and what they hold.

Arrays are compared value by value where their shapes agree, a block of rows at a time, so that memory does not grow
with the number of clips. Labels are compared class by class and clip by clip in `diff_labels.py`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.diff_labels import LabelsDiff, diff_labels, holds_labels
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.identity import differences
from avvp_pipe.store.lineage import Lineage, Node
from avvp_pipe.store.reference import Reference
from avvp_pipe.store.rows import block_rows, spans

NUMBERS = "biuf"


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and type of an array."""

    shape: tuple[int, ...]
    dtype: str
    """A Zarr v3 data type; `string` for text."""


@dataclass(frozen=True, slots=True)
class ArrayDiff:
    """One array in both artifacts, or in one of them. NaN equals NaN."""

    name: str
    a: Layout | None
    """None where A has no such array."""
    b: Layout | None
    differing: int | None = None
    """Values that differ, rows compared in place; None where shapes, or numbers and strings, differ."""
    largest: float | None = None
    """Largest absolute difference among pairs without NaN; may be infinite; None where values are no numbers."""

    @property
    def equal(self) -> bool:
        """Same shape, type and values."""
        return self.a == self.b and self.differing == 0


@dataclass(frozen=True, slots=True)
class Cause:
    """An input, near or far, that is not the same artifact on both sides, and what sets the two apart."""

    role: str
    a: Reference
    b: Reference
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that sets B apart from A."""

    a: Reference
    b: Reference
    identity: tuple[str, ...]
    """Stage, version, parameters, inputs, sources: one line a difference, A's value -> B's value."""
    causes: tuple[Cause, ...]
    """Why inputs differ, back to parameters and sources."""
    software: tuple[str, ...]
    """Versions that differ. They say how the artifact was made, and do not count as a difference by themselves."""
    attributes: Mapping[str, tuple[Any, Any]]
    """Name -> the values of A and B, where they differ; None where one has none."""
    arrays: tuple[ArrayDiff, ...]
    labels: LabelsDiff | None
    """Of labels and of a parser's predictions."""

    @property
    def same_content(self) -> bool:
        """Whether both hold the same, however they were made."""
        return not self.attributes and all(one.equal for one in self.arrays)

    @property
    def same(self) -> bool:
        """Whether both were made the same way and hold the same."""
        return not self.identity and self.same_content


def _each(names: tuple[str, ...]) -> Iterable[str]:
    return names


def compare(
    a: Artifact,
    b: Artifact,
    lineages: tuple[Lineage, Lineage],
    *,
    watch: Callable[[tuple[str, ...]], Iterable[str]] = _each,
) -> Comparison:
    """Compare two artifacts of one kind. `lineages`: of A and of B. `watch` passes the names of the arrays through.

    Raises StoreError where the kinds differ.
    """
    if a.kind != b.kind:
        raise StoreError(
            f"{a.reference} and {b.reference} are of two kinds; "
            f"name two artifacts of kind {a.kind}, or two of kind {b.kind}"
        )
    from_a, from_b = lineages
    names = tuple(sorted({*a.array_names(), *b.array_names()}))
    return Comparison(
        a=a.reference,
        b=b.reference,
        identity=_identity_lines(from_a.root, from_b.root),
        causes=tuple(causes(from_a, from_b)),
        software=software_lines(from_a.root.software, from_b.root.software),
        attributes=_attributes(a, b),
        arrays=tuple(diff_array(name, a, b) for name in watch(names)),
        labels=diff_labels(a, b) if holds_labels(a) and holds_labels(b) else None,
    )


def _identity_lines(a: Node, b: Node) -> tuple[str, ...]:
    if a.identity is None or b.identity is None:
        gone = " and ".join(str(node.reference) for node in (a, b) if node.identity is None)
        return (f"no record of {gone} is left",)
    return differences(a.identity, b.identity)


def causes(a: Lineage, b: Lineage) -> Iterator[Cause]:
    """Follow inputs whose keys differ, role by role, nearest first; each pair of artifacts once."""
    waiting, seen = [(a.root, b.root)], set()
    while waiting:
        left, right = waiting.pop(0)
        for role in [role for role in left.inputs if role in right.inputs]:
            pair = (left.inputs[role], right.inputs[role])
            if pair[0].version == pair[1].version or pair in seen:
                continue
            seen.add(pair)
            below = a.node(pair[0]), b.node(pair[1])
            yield Cause(role, *pair, _identity_lines(*below))
            waiting.append(below)


def software_lines(a: Mapping[str, str], b: Mapping[str, str]) -> tuple[str, ...]:
    """Versions that differ.

    >>> software_lines({"numpy": "1.26.4", "zarr": "3.1.5"}, {"numpy": "2.3.0", "zarr": "3.1.5"})
    ('numpy: 1.26.4 -> 2.3.0',)
    """
    changed = [name for name in sorted({*a, *b}) if a.get(name) != b.get(name)]
    return tuple(f"{name}: {a.get(name, 'unknown')} -> {b.get(name, 'unknown')}" for name in changed)


def _attributes(a: Artifact, b: Artifact) -> dict[str, tuple[Any, Any]]:
    left, right = a.described, b.described
    # A release also carries the prompts of its dataset, which the labels it was made of do not repeat.
    added = {"prompts"} if "release" in {*a.attrs, *b.attrs} else set()
    pairs = {name: (left.get(name), right.get(name)) for name in sorted({*left, *right} - added)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def diff_array(name: str, a: Artifact, b: Artifact) -> ArrayDiff:
    """Compare the array `name` of two artifacts, in blocks of rows. Raises StoreError where one is damaged."""
    found = ArrayDiff(name, _layout(a, name), _layout(b, name))
    if found.a is None or found.b is None or found.a.shape != found.b.shape:
        return found
    if (found.a.dtype == "string") != (found.b.dtype == "string"):
        return found
    blocks = [diff_values(left, right) for left, right in _blocks(name, a, b)]
    largest = max((most for _, most in blocks if most is not None), default=None if found.a.dtype == "string" else 0.0)
    return ArrayDiff(name, found.a, found.b, sum(count for count, _ in blocks), largest)


def _blocks(name: str, a: Artifact, b: Artifact) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    shape = a.facts(name).shape
    if not shape:
        yield a.array(name), b.array(name)
        return
    for start, stop in spans(shape[0], block_rows(a.lazy(name), b.lazy(name))):
        yield a.rows(name, slice(start, stop)), b.rows(name, slice(start, stop))


def _layout(artifact: Artifact, name: str) -> Layout | None:
    if name not in artifact:
        return None
    facts = artifact.facts(name)
    return Layout(facts.shape, facts.dtype)


def diff_values(a: NDArray[Any], b: NDArray[Any]) -> tuple[int, float | None]:
    """Of two arrays of one shape: how many values differ, and by how much at most (None: no numbers).

    NaN equals NaN and differs from every number, but has no distance to one; 0.0 where no two numbers differ.

    >>> diff_values(np.array([1.0, np.nan, np.nan]), np.array([3.0, np.nan, 0.0]))
    (2, 2.0)
    """
    if a.dtype.kind not in NUMBERS:
        return int(np.count_nonzero(np.asarray(a != b))), None
    unequal = a != b
    if a.dtype.kind == "f" and b.dtype.kind == "f":
        unequal &= ~(np.isnan(a) & np.isnan(b))
    left, right = a[unequal].astype(np.float64), b[unequal].astype(np.float64)
    apart = np.abs(left - right)
    return int(np.count_nonzero(unequal)), float(apart[~np.isnan(apart)].max(initial=0.0))
