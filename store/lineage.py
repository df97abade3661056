"""Where artifacts come from: the records of an artifact and of all that it was made of.

Every artifact names its inputs in its provenance, so the way back to the source files is a walk over records; no array
is read. A release carries the records of its ancestors in its attribute `lineage`, because its reader has no store
that holds them.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.identity import Identity
from avvp_pipe.store.reference import KINDS, Reference, parse_reference
from avvp_pipe.store.store import Store

Where = Literal["stored", "file", "recorded", "missing"]
"""In the store; a file or folder of its own; only in the records that a release carries; nowhere."""
Reads = Mapping[Reference, Collection[Reference]]
"""Artifact -> the artifacts that it was made of."""


@dataclass(frozen=True, slots=True)
class Node:
    """One artifact on the way back to the source files, as its record tells it."""

    reference: Reference
    where: Where
    identity: Identity | None = None
    """Stage, version, parameters, keys of the inputs, digests of the sources; None where the artifact is missing."""
    inputs: Mapping[str, Reference] = field(default_factory=dict)
    """Role -> artifact read in that role."""
    software: Mapping[str, str] = field(default_factory=dict)
    """Package -> version it was made with."""
    finished: str | None = None
    """When it was finished, ISO 8601 in UTC; None where no run in this store tells."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """Its provenance as it was written; empty where the artifact is missing."""
    stored_as: Reference | None = None
    """What it is called in the store, where that is another name than the one it was read by."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """An artifact and everything it comes from, each once: the artifact first, inputs before their siblings."""

    nodes: tuple[Node, ...]

    @property
    def root(self) -> Node:
        """The artifact that was asked about."""
        return self.nodes[0]

    @property
    def edges(self) -> tuple[tuple[Reference, str, Reference], ...]:
        """(reader, role, what it reads)."""
        return tuple((node.reference, role, read) for node in self.nodes for role, read in node.inputs.items())

    def node(self, reference: Reference) -> Node:
        """The node of an artifact in this lineage. Raises KeyError for another."""
        return {node.reference: node for node in self.nodes}[reference]


def lineage(store: Store, artifact: Artifact) -> Lineage:
    """Walk from `artifact` back to the sources; what the store lacks is taken from records that a release carries.

    Each artifact appears once, so a forged record that names itself ends the walk. An input that lies in the store
    under another name with the same key is the same artifact. Raises StoreError where a record is broken.
    """
    recorded = _recorded(artifact)
    here = store.find(artifact.reference) if artifact.kind in KINDS else None
    if here is not None and here.location == artifact.location:
        root = _stored_node(store, artifact, artifact.reference)
    else:
        root = _made(artifact.reference, "file", artifact.provenance)
    nodes = {root.reference: root}
    twins = cache(
        lambda: {(one.kind, one.reference.version): one for one in store.artifacts()}
    )  # read once, if it must be
    waiting = list(root.inputs.values())[::-1]
    while waiting:
        reference = waiting.pop()
        if reference not in nodes:
            nodes[reference] = _node(store, reference, recorded, twins)
            waiting += list(nodes[reference].inputs.values())[::-1]
    return Lineage(tuple(nodes.values()))


def inputs_of(provenance: Mapping[str, Any], *, of: object) -> dict[str, Reference]:
    """Role -> reference out of a provenance record. Raises StoreError, naming `of`, where the record is broken."""
    inputs = provenance.get("inputs")
    if not isinstance(inputs, Mapping):
        raise StoreError(f"the record of {of} names no inputs; it was not made by avvp-pipe, or was damaged since")
    try:
        return {str(role): parse_reference(str(text)) for role, text in inputs.items()}
    except StoreError as error:
        raise StoreError(f"the record of {of} is broken: {error}") from error


def resolved(reference: Reference, known: Collection[Reference]) -> Reference:
    """The artifact among `known` that a recorded input is: itself, else its twin of the same key under another name.

    >>> twin = Reference("features", "b", "123456789abc")
    >>> resolved(Reference("features", "a", "123456789abc"), [twin]) == twin
    True
    """
    if reference in known:
        return reference
    twins = [one for one in known if (one.kind, one.version) == (reference.kind, reference.version)]
    return min(twins, key=str, default=reference)


def turned(edges: Reads) -> dict[Reference, tuple[Reference, ...]]:
    """Who reads each artifact, out of what each reads; artifacts that nobody reads are not named."""
    readers: dict[Reference, tuple[Reference, ...]] = {}
    for reader, read in edges.items():
        for one in dict.fromkeys(read):
            readers[one] = (*readers.get(one, ()), reader)
    return readers


def reached(edges: Reads, starts: Iterable[Reference]) -> dict[Reference, Reference]:
    """Everything that `starts` lead to along `edges`, each with the artifact it was first reached from.

    With what artifacts read as edges these are ancestors, with their readers as edges the artifacts made from them.
    The starts themselves are left out, also where a forged record leads back to them.

    >>> a, b, c = (Reference("labels", name, "0") for name in "abc")
    >>> reached({a: [b], b: [c, a]}, [a]) == {b: a, c: b}
    True
    """
    waiting = deque(starts)
    seen = set(waiting)
    found: dict[Reference, Reference] = {}
    while waiting:
        here = waiting.popleft()
        for one in edges.get(here, ()):
            if one not in seen:
                seen.add(one)
                found[one] = here
                waiting.append(one)
    return found


def _recorded(artifact: Artifact) -> dict[Reference, Mapping[str, Any]]:
    """The records of ancestors that a release carries, by reference."""
    carried = artifact.attrs.get("lineage", {})
    if not isinstance(carried, Mapping) or not all(isinstance(record, Mapping) for record in carried.values()):
        raise StoreError(f"the attribute `lineage` of {artifact.reference} is broken; wanted records by reference")
    return {parse_reference(str(text)): record for text, record in carried.items()}


def _node(
    store: Store,
    reference: Reference,
    recorded: Mapping[Reference, Mapping[str, Any]],
    twins: Callable[[], Mapping[tuple[str, str | None], Artifact]],
) -> Node:
    if found := store.find(reference) or twins().get((reference.kind, reference.version)):
        return _stored_node(store, found, reference)
    if reference in recorded:
        return _made(reference, "recorded", recorded[reference])
    return Node(reference, "missing")


def _stored_node(store: Store, artifact: Artifact, reference: Reference) -> Node:
    made = _made(reference, "stored", artifact.provenance)
    named = artifact.reference if artifact.name != reference.name else None
    return replace(made, finished=store.finished(artifact) or None, stored_as=named)


def _made(reference: Reference, where: Where, record: Mapping[str, Any]) -> Node:
    inputs = inputs_of(record, of=reference)
    keys = {role: read.version or "" for role, read in inputs.items()}
    try:
        identity = Identity(
            str(record["stage"]), int(record["stage_version"]), dict(record["params"]), keys, dict(record["sources"])
        )
        if not all(isinstance(digest, str) for digest in identity.sources.values()):
            raise TypeError("sources without digests")
        return Node(reference, where, identity, inputs, dict(record.get("software", {})), record=record)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the record of {reference} is broken ({type(error).__name__}: {error})") from error
