"""Looking an artifact through: every byte, every array, and the record of how it came to be.

`verify` never stops at the first thing it finds wrong, and raises only what the machine itself raises.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.artifact import Artifact, checked_provenance, identity_of
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.integrity import METADATA, file_digest, node_digests, nodes_of, root_bytes, self_digest
from avvp_pipe.store.metadata import FILE_LIMIT_BYTES, ArrayFacts, parse_json
from avvp_pipe.store.places.bucket import Cached
from avvp_pipe.store.places.folder import Folder
from avvp_pipe.store.reference import KINDS, Reference, parse_reference
from avvp_pipe.store.schema import check_shapes, columns, wrong_values
from avvp_pipe.store.status import CODES, Status

if TYPE_CHECKING:
    from avvp_pipe.store.store import Store

SEGMENTS_LIMIT = 2**32
"""Of one artifact that can be looked through."""

__all__ = ["Finding", "Verdict", "verify", "verify_store"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong."""

    where: str
    """The file, array or part of the record."""
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of looking one artifact through."""

    artifact: str
    digest: str
    files: int
    bytes: int
    findings: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(artifact: Artifact, store: "Store | None" = None) -> Verdict:
    """Look through one artifact; with `store`, also whether its inputs are there and are those it was made of."""
    try:
        digest = artifact.digest
    except StoreError as error:
        return Verdict(str(artifact.reference), "", 0, 0, (Finding(METADATA, str(error)),))
    names = list(artifact.place.names())
    if isinstance(artifact.place, Cached):
        artifact = Artifact(artifact.place.origin, artifact.reference)  # what is stored, not what was read once
    findings = (
        *_root(artifact),
        *_links(artifact, names),
        *_files(artifact, names),
        *_arrays(artifact),
        *_provenance(artifact, store),
    )
    return Verdict(str(artifact.reference), digest, len(names), artifact.size_bytes(), findings)


def verify_store(store: "Store") -> Iterator[Finding]:
    """What is wrong with the files beside the artifacts: unreadable records, tags that mean nothing any more."""
    for artifact in store.artifacts():
        try:
            store.run_note(artifact)
        except StoreError as error:
            yield Finding(str(artifact.reference), str(error))
    for reference in (Reference(kind, name) for kind in KINDS for name in store.place.folders(kind)):
        try:
            store.request(reference)
            for tag, key in store.tags(reference).items():
                if store.find(parse_reference(f"{reference}@{key}")) is None:
                    yield Finding(f"{reference}@{tag}", f"the tag means {key}, which is not in the store")
        except StoreError as error:
            yield Finding(str(reference), str(error))


def _root(artifact: Artifact) -> Iterator[Finding]:
    """The root's metadata say of themselves whether they are as they were written."""
    document = parse_json(artifact.metadata, METADATA)
    if nodes_of(artifact.attrs) is None:
        yield Finding(METADATA, "holds no digests of the artifact's files")
        return
    try:
        sound = artifact.digest == self_digest(document) and root_bytes(document) == artifact.metadata
    except (ValueError, TypeError, RecursionError):
        sound = False
    if not sound:
        yield Finding(METADATA, "was changed after it was written: it differs from the digest that it carries")


def _files(artifact: Artifact, names: list[str]) -> Iterator[Finding]:
    """Every other file is covered by the digest of its node."""
    nodes = nodes_of(artifact.attrs)
    if nodes is None:
        return
    digests = {}
    for name in names:
        try:
            if (artifact.place.size(name) or 0) > FILE_LIMIT_BYTES:
                yield Finding(name, f"is larger than {FILE_LIMIT_BYTES} bytes, and so none of the artifact's files")
            else:
                digests[name] = file_digest(artifact.place.read(name))
        except (OSError, StoreError) as error:
            yield Finding(name, f"cannot be read: {error}")
    found = node_digests(digests)
    for node in sorted({*nodes, *found}):
        if node not in found:
            yield Finding(node, "is missing: the artifact was written with it")
        elif node not in nodes:
            yield Finding(
                node or "files beside the arrays", "does not belong to the artifact: it was added after it was written"
            )
        elif found[node] != nodes[node]:
            yield Finding(node, f"was changed after it was written: {_damage(artifact, node)}")


def _links(artifact: Artifact, names: list[str]) -> Iterator[Finding]:
    """An artifact's own folder holds plain files only; a link could lead anywhere, and change."""
    if isinstance(artifact.place, Folder):
        for name in names:
            if (artifact.place.path / name).is_symlink():
                yield Finding(name, "is a symbolic link, where an artifact holds plain files only")


def _damage(artifact: Artifact, node: str) -> str:
    """What can be said of a node whose files have another digest than they had."""
    try:
        facts = artifact.facts(node)
        for start in range(0, facts.shape[0] if facts.shape else 0, facts.stored_shape[0] if facts.shape else 1):
            try:
                artifact.rows(node, slice(start, start + facts.stored_shape[0]))
            except StoreError as error:
                return f"rows from {start} on cannot be read ({error.__cause__})"
    except StoreError as error:
        return str(error)
    return "its files read, but they are not the ones that were written"


def _arrays(artifact: Artifact) -> Iterator[Finding]:
    """Shapes and dtypes, then the values of every array that decodes."""
    try:
        facts = check_shapes(artifact)
    except StoreError as error:
        yield Finding("arrays", str(error))
        return
    try:
        present = _present(artifact, facts)
        segments = None if present is None else present.shape[1]
        for name, column in columns(artifact.kind, tuple(facts)).items():
            step = max(1, facts[name].stored_shape[0] if facts[name].shape else 1)
            for start in range(0, facts[name].shape[0] if facts[name].shape else 1, step):
                rows = slice(start, start + step)
                block = artifact.rows(name, rows if facts[name].shape else ...)  # type: ignore[arg-type]
                if wrong := wrong_values(block, column, None if present is None else present[rows], segments):
                    yield Finding(name, f"{wrong}, in rows from {start} on")
                    break
        yield from _clips(artifact, facts)
    except StoreError as error:
        yield Finding("arrays", str(error))


def _present(artifact: Artifact, facts: Mapping[str, ArrayFacts]) -> NDArray[np.bool_] | None:
    """(N, T): segments that exist, of clips that could be processed; None for kinds without segments."""
    shapes = [
        facts[name].shape for name, column in columns(artifact.kind, tuple(facts)).items() if column.axes[:2] == "NT"
    ]
    if not shapes:
        return None
    if shapes[0][0] * shapes[0][1] > SEGMENTS_LIMIT:
        raise StoreError(f"{shapes[0][0]} clips of {shapes[0][1]} segments are more than {SEGMENTS_LIMIT} segments")
    present = np.arange(shapes[0][1]) < artifact.array("lengths")[:, None]
    if "status" in facts:
        present &= (artifact.array("status") == Status.OK)[:, None]
    return np.asarray(present)


def _clips(artifact: Artifact, facts: Mapping[str, ArrayFacts]) -> Iterator[Finding]:
    if "video_ids" not in facts:
        return
    ids = artifact.strings("video_ids")
    if len(set(ids)) != len(ids) or "" in ids:
        yield Finding("video_ids", "names a clip twice, or not at all")
    if "status" in facts:
        status = artifact.array("status")
        if strange := set(status.tolist()) - {int(one) for one in Status if one is not Status.PENDING}:
            yield Finding("status", f"holds {sorted(strange)}, which is no code of what becomes of a clip")
        unknown = {failure["video_id"] for failure in artifact.provenance["failures"]} - set(ids)
        if unknown:
            yield Finding("provenance", f"lists failures of clips that are not there: {', '.join(sorted(unknown)[:5])}")


def _provenance(artifact: Artifact, store: "Store | None") -> Iterator[Finding]:
    """The key follows from the record; failures have known codes; the inputs are what they were."""
    try:
        record = artifact.provenance
        if artifact.identity.key != artifact.key:
            yield Finding(
                "provenance", f"gives the key {artifact.identity.key}, but the artifact is called {artifact.key}"
            )
    except (StoreError, ValueError, TypeError) as error:
        yield Finding("provenance", str(error))
        return
    for role, text in record["inputs"].items():
        try:
            parse_reference(text)
        except StoreError as error:
            yield Finding(f"input {role}", str(error))
            store = None  # in which it cannot be looked up
    if strange := {failure["code"] for failure in record["failures"]} - CODES:
        yield Finding("provenance", f"lists failures with unknown codes {', '.join(sorted(strange))}")
    lineage = artifact.attrs.get("lineage", {})
    yield from _lineage(lineage)
    if store is not None:
        yield from _inputs(record, lineage if isinstance(lineage, dict) else {}, store)


def _lineage(lineage: Any) -> Iterator[Finding]:
    """The records of ancestors that a release carries hash to the keys that they are called by."""
    if not isinstance(lineage, dict):
        yield Finding("lineage", "is no table of records")
        return
    for reference, record in lineage.items():
        try:
            identity = identity_of(checked_provenance(record, reference))
            if identity.key != parse_reference(reference).version:
                yield Finding("lineage", f"the record of {reference} gives the key {identity.key}")
        except (ValueError, TypeError) as error:
            yield Finding("lineage", str(error))


def _inputs(record: Mapping[str, Any], lineage: Mapping[str, Any], store: "Store") -> Iterator[Finding]:
    digests = record.get("input_digests", {})
    for role, text in record["inputs"].items():
        try:
            found = store.find(parse_reference(text))
            here = (found.content_digest, found.digest) if found else ()
        except StoreError as error:
            yield Finding(f"input {role}", f"{text} cannot be read: {error}")
            continue
        if found is None:
            if text not in lineage:
                yield Finding(f"input {role}", f"{text} is not in the store any more, nor is its record")
        elif isinstance(digests, dict) and digests.get(role) and digests[role] not in here:
            yield Finding(
                f"input {role}", f"{text} is not the one that was read: it was built anew and came out otherwise"
            )
