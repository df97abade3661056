"""One way to open what people name: a reference into a store, the folder of an artifact, a released zip."""

from pathlib import Path

from avvp_pipe.store.artifact import Artifact, artifact_in
from avvp_pipe.store.places import is_url
from avvp_pipe.store.release import open_release
from avvp_pipe.store.store import Store

__all__ = ["open_artifact"]


def open_artifact(text: str, store: Store, *, kind: str | None = None) -> Artifact:
    """The artifact that `text` means: an existing folder or a path that ends in `.zip` is taken as such.

    kind: the kind that a reference may leave out. Raises ArtifactNotFoundError or StoreError.
    """
    path = Path(text)
    if not is_url(text) and path.suffix == ".zip":
        return open_release(path)
    if not is_url(text) and (path / "zarr.json").is_file():
        return artifact_in(path)
    return store.get(text, kind=kind)
