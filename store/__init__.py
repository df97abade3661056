"""Artifacts: references, keys, publishing, reading, and the labels that people load."""

from typing import TYPE_CHECKING, Any

from avvp_pipe.store.artifact import Artifact, artifact_in
from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError, StoreWriteError
from avvp_pipe.store.identity import Identity, differences
from avvp_pipe.store.notes import Request
from avvp_pipe.store.places import cache_folder
from avvp_pipe.store.reference import KINDS, Reference, parse_reference
from avvp_pipe.store.store import DEFAULT_STORE, Store

if TYPE_CHECKING:
    from avvp_pipe.store.builder import Builder, Failure
    from avvp_pipe.store.labels import ClipLabels, Labels, load_labels

__all__ = [
    "DEFAULT_STORE",
    "KINDS",
    "Artifact",
    "ArtifactNotFoundError",
    "Builder",
    "ClipLabels",
    "Failure",
    "Identity",
    "Labels",
    "Reference",
    "Request",
    "Store",
    "StoreError",
    "StoreWriteError",
    "artifact_in",
    "cache_folder",
    "differences",
    "load_labels",
    "parse_reference",
]

_LATER = {name: "builder" for name in ("Builder", "Failure")} | {
    name: "labels" for name in ("ClipLabels", "Labels", "load_labels")
}


def __getattr__(name: str) -> Any:
    # zarr and numpy are imported when they are needed, so that `avvp-pipe --help` is quick.
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(f"avvp_pipe.store.{_LATER[name]}"), name)
    raise AttributeError(f"avvp_pipe.store has no {name!r}")
