"""Reading a finished artifact: a Zarr v3 group on disk, never written again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.identity import Identity
from avvp_pipe.store.reference import Reference

if TYPE_CHECKING:
    import zarr

METADATA_LIMIT_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Artifact:
    """One artifact. Its attributes are read without zarr; arrays are opened when asked for."""

    path: Path

    @property
    def key(self) -> str:
        """The key, which is also the folder's name."""
        return self.path.name

    @property
    def name(self) -> str:
        """The name given by whoever made it."""
        return self.path.parent.name

    @property
    def kind(self) -> str:
        """What it holds, one of `reference.KINDS`."""
        return self.path.parent.parent.name

    @property
    def reference(self) -> Reference:
        """kind/name@key."""
        return Reference(self.kind, self.name, self.key)

    @cached_property
    def attrs(self) -> Mapping[str, Any]:
        """The group's attributes: `provenance` and what the stage described.

        Raises StoreError where the folder holds no readable Zarr v3 group.
        """
        file = self.path / "zarr.json"
        try:
            if file.stat().st_size > METADATA_LIMIT_BYTES:
                raise StoreError(f"{file} is larger than {METADATA_LIMIT_BYTES} bytes; it is not ours to read")
            metadata = json.loads(file.read_text())
            attributes = metadata["attributes"]
        except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise StoreError(f"{self.path} is not an artifact: no Zarr group is readable there ({error})") from error
        if not isinstance(attributes, dict):
            raise StoreError(f"{file} has attributes of type {type(attributes).__name__}, not an object")
        return attributes

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it came to be: stage, parameters, inputs, sources, software, counts, failures."""
        provenance = self.attrs.get("provenance")
        if not isinstance(provenance, dict):
            raise StoreError(f"{self.path} carries no provenance record; it was not made by avvp-pipe")
        return provenance

    @property
    def identity(self) -> Identity:
        """The record that the key was made of."""
        record = self.provenance
        inputs = {role: str(reference).rpartition("@")[2] for role, reference in record["inputs"].items()}
        return Identity(record["stage"], record["stage_version"], record["params"], inputs, record["sources"])

    @cached_property
    def group(self) -> "zarr.Group":
        """The opened Zarr group, read-only."""
        import zarr

        return zarr.open_group(self.path, mode="r", zarr_format=3, use_consolidated=False)

    def __contains__(self, name: str) -> bool:
        return (self.path / name / "zarr.json").is_file()

    def lazy(self, name: str) -> "zarr.Array[Any]":
        """The Zarr array `name`, nothing read yet. Raises StoreError naming the arrays there are."""
        import zarr

        found = self.group.get(name) if name in self else None
        if not isinstance(found, zarr.Array):
            raise StoreError(f"{self.reference} has no array {name!r}; it has {', '.join(self.array_names())}")
        return found

    def array(self, name: str) -> NDArray[Any]:
        """The whole array `name`."""
        return np.asarray(self.lazy(name)[...])

    def strings(self, name: str) -> tuple[str, ...]:
        """The whole string array `name`."""
        return tuple(str(item) for item in self.array(name))

    def array_names(self) -> tuple[str, ...]:
        """Names of all arrays, those of subgroups as `group/name`, sorted."""
        found = []
        for file in self.path.rglob("zarr.json"):
            if file.parent != self.path and json.loads(file.read_text()).get("node_type") == "array":
                found.append(file.parent.relative_to(self.path).as_posix())
        return tuple(sorted(found))

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
