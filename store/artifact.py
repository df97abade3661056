"""Reading a finished artifact: a Zarr v3 group in a folder, a bucket or a zip, never written again."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError
from avvp_pipe.store.identity import Identity
from avvp_pipe.store.integrity import METADATA, content_digest_of, digest_of, node_of, nodes_of
from avvp_pipe.store.metadata import METADATA_LIMIT_BYTES, ArrayFacts, check_array, check_format, check_root, parse_json
from avvp_pipe.store.places import Place
from avvp_pipe.store.places.folder import Folder
from avvp_pipe.store.reference import Reference

if TYPE_CHECKING:
    from types import EllipsisType

    import zarr

PROVENANCE = {
    "stage": str, "stage_version": int, "params": dict, "inputs": dict, "sources": dict,
    "software": dict, "failures": list,
}  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """One artifact. Its attributes are read without zarr; arrays are opened when asked for.

    Whatever is wrong with its files is raised as StoreError.
    """

    place: Place
    """The tree of files that it consists of."""
    reference: Reference
    """kind/name@key: where it stands in its store, or for a file of its own, what it says of itself."""

    @property
    def key(self) -> str:
        """The key, which is also the folder's name."""
        return self.reference.version or ""

    @property
    def name(self) -> str:
        """The name given by whoever made it."""
        return self.reference.name

    @property
    def kind(self) -> str:
        """What it holds, one of `reference.KINDS`."""
        return self.reference.kind

    @property
    def location(self) -> str:
        """Where people find it: a path or a URL."""
        return self.place.location

    @property
    def path(self) -> Path:
        """Its folder. Raises StoreError where it lies in a bucket or a zip."""
        if not isinstance(self.place, Folder):
            raise StoreError(f"{self.location} is no folder of this machine")
        return self.place.path

    @cached_property
    def metadata(self) -> bytes:
        """The bytes of the root's metadata."""
        try:
            return self._bounded(METADATA)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ArtifactNotFoundError(
                f"{self.location} is not an artifact, or was removed: no Zarr group is readable there ({error})"
            ) from error

    @cached_property
    def attrs(self) -> Mapping[str, Any]:
        """The group's attributes: `provenance`, `format`, `integrity`, and what the stage described.

        Raises StoreError where there is no readable Zarr v3 group, or one of a format that is too new.
        """
        where = f"{self.location}/{METADATA}"
        attributes = check_root(parse_json(self.metadata, where), where)
        check_format(attributes, where)
        return attributes

    @property
    def described(self) -> dict[str, Any]:
        """The attributes that the stage described, without the store's own."""
        own = ("provenance", "format", "integrity", "release", "lineage")
        return {name: value for name, value in self.attrs.items() if name not in own}

    @property
    def digest(self) -> str:
        """sha256 that covers every byte of the artifact (`integrity.py`), in hex."""
        return digest_of(self.attrs)

    @property
    def content_digest(self) -> str:
        """The same, but of a dataset without the places of its files: all that may change under its key."""
        return content_digest_of(self.attrs) if self.kind == "dataset" else self.digest

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """How it came to be: stage, parameters, inputs and their digests, sources, software, failures."""
        return checked_provenance(self.attrs.get("provenance"), self.location)

    @property
    def identity(self) -> Identity:
        """The record that the key was made of."""
        return identity_of(self.provenance)

    def __contains__(self, name: str) -> bool:
        return self.place.size(f"{name}/{METADATA}") is not None

    def facts(self, name: str) -> ArrayFacts:
        """Shape, dtype and chunks of the array `name`. Raises StoreError where there is none that may be read."""
        where = f"{name}/{METADATA}"
        try:
            document = self._document(where)
        except (FileNotFoundError, NotADirectoryError):
            if name in self._nodes:
                raise self._gone(where) from None
            names = ", ".join(self.array_names())
            raise StoreError(f"{self.reference} has no array {name!r}; it has {names}") from None
        return check_array(document, f"{self.location}/{where}")

    def lazy(self, name: str) -> "zarr.Array[Any]":
        """The Zarr array `name`, nothing read yet. Raises StoreError naming the arrays there are."""
        from avvp_pipe.store.places.zarr_view import open_array

        self.facts(name)
        try:
            return open_array(self.place, name)
        except FileNotFoundError:
            raise self._gone(name) from None
        except Exception as error:
            raise StoreError(f"array {name!r} of {self.location} cannot be opened: {error}") from error

    def rows(self, name: str, rows: slice | int) -> NDArray[Any]:
        """Some rows of the array `name`, or one. Raises StoreError where they are damaged."""
        return self._read(name, rows)

    def array(self, name: str) -> NDArray[Any]:
        """The whole array `name`. Raises StoreError where it is damaged."""
        return self._read(name, ...)

    def _read(self, name: str, rows: "slice | int | EllipsisType") -> NDArray[Any]:
        from avvp_pipe.store.places.plain_rows import NotStoredError, is_plain, read_rows

        facts = self.facts(name)
        array = None if is_plain(facts, rows) else self.lazy(name)
        try:
            if array is None:
                with suppress(NotStoredError):
                    return read_rows(self.place, name, facts, rows)
                array = self.lazy(name)
            return np.asarray(array[rows])
        except ArtifactNotFoundError:
            raise
        except Exception as error:  # whatever zarr and the codecs make of damaged bytes
            raise StoreError(
                f"array {name!r} of {self.location} cannot be read: {type(error).__name__}: {error}; "
                "`avvp-pipe verify` tells which files are damaged"
            ) from error

    def strings(self, name: str) -> tuple[str, ...]:
        """The whole string array `name`."""
        if self.facts(name).dtype != "string":
            raise StoreError(f"array {name!r} of {self.location} holds {self.facts(name).dtype}, not text")
        return tuple(str(item) for item in self.array(name))

    def array_names(self) -> tuple[str, ...]:
        """Names of all arrays, those of subgroups as `group/name`, sorted."""
        walked = (node_of(name) for name in self.place.names() if name.endswith(f"/{METADATA}"))
        nodes = self._nodes or tuple(walked)
        arrays = [node for node in nodes if node and self._node_type(node) == "array"]
        return tuple(sorted(arrays))

    def _node_type(self, node: str) -> object:
        where = f"{node}/{METADATA}"
        try:
            return self._document(where).get("node_type")
        except (FileNotFoundError, NotADirectoryError):
            raise self._gone(where) from None

    def _document(self, name: str) -> dict[str, Any]:
        """The JSON of a file of metadata, read once."""
        if name not in self._documents:
            self._documents[name] = parse_json(self._bounded(name), f"{self.location}/{name}")
        return self._documents[name]

    @cached_property
    def _documents(self) -> dict[str, dict[str, Any]]:
        return {}

    def _bounded(self, name: str) -> bytes:
        """The bytes of a file of metadata, not read where there are too many."""
        size = self.place.size(name) or 0
        if size > METADATA_LIMIT_BYTES:
            where = f"{self.location}/{name}"
            raise StoreError(f"{where} is larger than {METADATA_LIMIT_BYTES} bytes; it is not ours to read")
        return self.place.read(name)

    @property
    def _nodes(self) -> tuple[str, ...]:
        """The arrays and groups that it says it has."""
        return tuple(nodes_of(self.attrs) or ())

    def _gone(self, what: str) -> ArtifactNotFoundError:
        return ArtifactNotFoundError(
            f"{what} of {self.location} is gone: the artifact was removed while it was being read, or it is damaged; "
            "open it again"
        )

    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(self.place.size(name) or 0 for name in self.place.names())


def checked_provenance(record: Any, location: str) -> Mapping[str, Any]:
    """A provenance record whose members are what they should be. Raises StoreError."""
    if not isinstance(record, dict):
        raise StoreError(f"{location} carries no provenance record; it was not made by avvp-pipe")
    for name, kind in PROVENANCE.items():
        if not isinstance(record.get(name), kind) or isinstance(record.get(name), bool):
            came = type(record.get(name)).__name__
            raise StoreError(f"the provenance of {location} has {name} of type {came}, where {kind.__name__} is wanted")
    for name in ("inputs", "sources"):
        if not all(isinstance(value, str) for value in record[name].values()):
            raise StoreError(f"the provenance of {location} has {name} that are not text")
    for failure in record["failures"]:
        if not isinstance(failure, dict) or not all(
            isinstance(failure.get(one), str) for one in ("video_id", "code", "message")
        ):
            raise StoreError(f"the provenance of {location} lists a failure without video_id, code and message")
    return record


def identity_of(record: Mapping[str, Any]) -> Identity:
    """The identity in a checked provenance record."""
    inputs = {role: reference.rpartition("@")[2] for role, reference in record["inputs"].items()}
    return Identity(record["stage"], record["stage_version"], record["params"], inputs, record["sources"])


def artifact_in(folder: Path) -> Artifact:
    """The artifact in a folder of its own, wherever that lies; kind, name and key are those of its path."""
    kind, name, key = ("", "", *folder.resolve().parts)[-3:]
    return Artifact(Folder(folder), Reference(kind, name, key))
