"""Digests: every byte of an artifact is covered by one, and all of them by the artifact's own.

A node is an array or a group. Its digest is sha256 over the sorted lines `<sha256 of file>  <file>` of the files
that are its own: `zarr.json`, and an array's chunks. The root's attribute `integrity` holds the digests of all nodes
below it and, as `self`, the sha256 of the root's metadata without that line. The root's `zarr.json` is written in
one way only, so that any other byte in it shows.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avvp_pipe.store.identity import canonical_json
from avvp_pipe.store.metadata import FORMAT

__all__ = [
    "METADATA",
    "content_digest_of",
    "digest_of",
    "digest_of_file",
    "file_digest",
    "node_digests",
    "node_of",
    "nodes_of",
    "root_bytes",
    "sealed",
    "self_digest",
]

METADATA = "zarr.json"
PLACES = ("location", "videos", "paths")
"""Attributes and arrays of a dataset that say where its files lie, which its key leaves out."""


def file_digest(data: bytes) -> str:
    """sha256 of a file's bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of_file(path: Path) -> str:
    """sha256 of the bytes of a file, in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def nodes_of(attributes: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The digests of nodes that a root's attributes carry, None where they carry none."""
    integrity = attributes.get("integrity")
    nodes = integrity.get("nodes") if isinstance(integrity, dict) else None
    return nodes if isinstance(nodes, dict) else None


def node_of(name: str) -> str:
    """The node that a file belongs to, "" for the root.

    >>> [node_of(name) for name in ("text_audio/uwav/c/0/0", "text_audio/zarr.json", "zarr.json", "status/c")]
    ['text_audio/uwav', 'text_audio', '', 'status']
    """
    folders = name.split("/")
    if folders[-1] == METADATA:
        return "/".join(folders[:-1])
    return "/".join(folders[: folders.index("c")]) if "c" in folders[1:] else "/".join(folders[:-1])


def node_digests(files: Mapping[str, str]) -> dict[str, str]:
    """Node -> digest, from the digests of all files. The root's own metadata stay out."""
    lines: dict[str, list[str]] = {}
    for name, digest in files.items():
        if name != METADATA:
            lines.setdefault(node_of(name), []).append(f"{digest}  {name}\n")
    # File systems hold names that are no UTF-8; they are added files, which must show and not raise.
    texts = {node: "".join(sorted(those)).encode(errors="surrogateescape") for node, those in sorted(lines.items())}
    return {node: hashlib.sha256(text).hexdigest() for node, text in texts.items()}


def sealed(attributes: Mapping[str, Any], nodes: Mapping[str, str]) -> bytes:
    """The root's `zarr.json` of an artifact with these attributes and nodes: deterministic, self-checking.

    Raises ValueError where an attribute is not JSON: NaN, infinity, an object.
    """
    integrity = {"algorithm": "sha256", "nodes": dict(nodes), "self": ""}
    document = {
        "attributes": {**attributes, "format": FORMAT, "integrity": integrity},
        "node_type": "group",
        "zarr_format": 3,
    }
    integrity["self"] = self_digest(document)
    return root_bytes(document)


def self_digest(document: Mapping[str, Any]) -> str:
    """sha256 over the canonical JSON of the root's metadata, its own `self` taken out."""
    attributes = document["attributes"]
    integrity = {name: value for name, value in attributes["integrity"].items() if name != "self"}
    bare = {**document, "attributes": {**attributes, "integrity": integrity}}
    return hashlib.sha256(canonical_json(bare).encode()).hexdigest()


def root_bytes(document: Mapping[str, Any]) -> bytes:
    """The one way in which the root's metadata are written."""
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def digest_of(attributes: Mapping[str, Any]) -> str:
    """The digest of a sealed artifact, "" for one without."""
    integrity = attributes.get("integrity")
    return str(integrity.get("self", "")) if isinstance(integrity, dict) else ""


def content_digest_of(attributes: Mapping[str, Any]) -> str:
    """The digest of a dataset's arrays and of what its stage described, without the places of its files.

    With the places goes the record of how it was made, which may differ when it is made anew for another place.
    """
    described = {name: value for name, value in attributes.items() if name not in ("integrity", "provenance", *PLACES)}
    nodes = {name: digest for name, digest in (nodes_of(attributes) or {}).items() if name not in PLACES}
    return hashlib.sha256(canonical_json({"attributes": described, "nodes": nodes}).encode()).hexdigest()
