"""Released labels: one zip that holds the labels, their thresholds, prompts and classes, and how they came to be.

A release is the artifact as it is, plus three attributes: `release` (what it was called, and its digest), `prompts`
(those of its dataset) and `lineage` (the provenance of everything it was made of, back to the source files). Same
artifact, same bytes. Who gets the zip needs no store: `load_labels("labels.zarr.zip")`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError, StoreWriteError
from avvp_pipe.store.integrity import METADATA, digest_of_file, sealed
from avvp_pipe.store.lineage import lineage
from avvp_pipe.store.places.zipped import Zipped, open_zip, pack
from avvp_pipe.store.reference import Reference, parse_reference
from avvp_pipe.store.schema import check_shapes
from avvp_pipe.store.verify import Finding, Verdict, verify

if TYPE_CHECKING:
    from avvp_pipe.store.store import Store

__all__ = ["Released", "adopt", "open_release", "release", "verify_release"]

SUFFIX = ".zarr.zip"


@dataclass(frozen=True, slots=True)
class Released:
    """A zip that was written."""

    path: Path
    digest: str
    """sha256 of the file, also in `FILE.sha256` as `sha256sum -c` reads it."""
    bytes: int


def release(artifact: Artifact, store: "Store", out: Path) -> Released:
    """Pack labels into `out`, with a digest beside it. Raises StoreError where they are not sound or `out` is taken."""
    if artifact.kind != "labels":
        raise StoreError(f"{artifact.reference} holds no labels; labels are what is released")
    if not out.name.endswith(SUFFIX):
        raise StoreError(f"a release is called something{SUFFIX}, not {out.name}")
    if out.exists():
        raise StoreError(f"{out} exists already; a release is never written over: remove it, or choose another name")
    verdict = verify(artifact, store)
    if not verdict.is_sound:
        first = verdict.findings[0]
        raise StoreError(f"{artifact.reference} is not sound and is not released: {first.where}: {first.message}")
    out.parent.mkdir(parents=True, exist_ok=True)
    pack(out, _files(artifact, _root(artifact, store)))
    digest = digest_of_file(out)
    _write_digest(out, digest)
    return Released(out, digest, out.stat().st_size)


def _root(artifact: Artifact, store: "Store") -> bytes:
    attributes = {name: value for name, value in artifact.attrs.items() if name not in ("format", "integrity")}
    attributes |= {
        "release": {"reference": str(artifact.reference), "digest": artifact.digest},
        "prompts": _prompts(artifact, store),
        "lineage": _lineage(artifact, store),
    }
    return sealed(attributes, artifact.attrs["integrity"]["nodes"])


def _lineage(artifact: Artifact, store: "Store") -> dict[str, Mapping[str, Any]]:
    """Reference -> provenance of everything that an artifact was made of."""
    found = {str(node.reference): node.record for node in lineage(store, artifact).nodes[1:] if node.record}
    return {**found, **artifact.attrs.get("lineage", {})}


def _prompts(artifact: Artifact, store: "Store") -> Any:
    text = artifact.provenance["inputs"].get("dataset")
    dataset = store.find(parse_reference(text)) if text else None
    return dataset.attrs.get("prompts", {}) if dataset else artifact.attrs.get("prompts", {})


def _files(artifact: Artifact, root: bytes) -> Iterator[tuple[str, bytes]]:
    yield METADATA, root
    yield from ((name, artifact.place.read(name)) for name in artifact.place.names() if name != METADATA)


def _write_digest(path: Path, digest: str) -> None:
    from avvp_pipe.store.places.folder import Folder

    Folder(path.parent).write(f"{path.name}.sha256", f"{digest}  {path.name}\n".encode())


def open_release(path: Path) -> Artifact:
    """The artifact in a zip, nothing of it read but the table of contents and the root's metadata.

    Raises StoreError where the zip is not what a release is.
    """
    place = open_zip(path)
    unnamed = Artifact(place, Reference("labels", "release"))
    told = unnamed.attrs.get("release")
    try:
        reference = parse_reference(told["reference"], kind="labels") if isinstance(told, dict) else unnamed.reference
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} does not say which labels it holds ({error})") from error
    return Artifact(place, reference)


def verify_release(path: Path) -> Verdict:
    """Look through a zip: its artifact, then every byte of the zip itself, by packing the artifact again.

    Raises ArtifactNotFoundError where there is no such file.
    """
    if not path.exists():
        raise ArtifactNotFoundError(f"no file {path}")
    try:
        artifact = open_release(path)
        verdict = verify(artifact)
    except StoreError as error:
        return Verdict(str(path), "", 0, 0, (Finding(path.name, str(error)),))
    digest = digest_of_file(path)
    findings = [*verdict.findings, *_around(artifact, path, digest)]
    return Verdict(verdict.artifact, digest, verdict.files, path.stat().st_size, tuple(findings))


def _around(artifact: Artifact, path: Path, digest: str) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder, path.name)
        pack(again, _files(artifact, artifact.metadata))
        if digest_of_file(again) != digest:
            yield Finding(path.name, "the zip around the artifact is not as it was written")
    beside = path.with_name(f"{path.name}.sha256")
    if beside.is_file() and beside.read_bytes()[:64] != digest.encode():
        yield Finding(beside.name, "gives another digest than the file has")


def adopt(path: Path, store: "Store", name: str | None = None) -> Artifact:
    """Put released labels into a store, under their own key, once they were found to be sound. Raises StoreError.

    name: what to call them; left out, what they were called where they were made.
    """
    verdict = verify_release(path)
    if not verdict.is_sound:
        first = verdict.findings[0]
        raise StoreError(f"{path} is not sound and is not taken in: {first.where}: {first.message}")
    artifact = open_release(path)
    check_shapes(artifact, "labels")
    reference = parse_reference(f"labels/{name or artifact.name}@{artifact.key}")
    assert isinstance(artifact.place, Zipped)
    if store.find(reference) is None:
        store.take_in(reference, _files(artifact, artifact.metadata), run_facts={"adopted": path.name})
    found = store.find(reference)
    if found is None:
        raise StoreWriteError(f"{reference} was written to {store.root} and is gone")
    return found
