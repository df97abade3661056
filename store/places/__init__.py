"""Where artifacts live: a folder, a bucket, a zip. One way to read them all, one to write the first two."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from avvp_pipe.store.errors import StoreError

__all__ = ["BUCKET_SCHEMES", "Place", "WritablePlace", "cache_folder", "is_url", "open_place"]

BUCKET_SCHEMES = ("s3", "gs", "az")


class Place(Protocol):
    """A tree of files. Names are relative, with `/` between folders; nothing outside the tree can be named."""

    @property
    def location(self) -> str:
        """How people find it: a path or a URL."""
        ...

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises FileNotFoundError."""
        ...

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start to stop of a file, fewer where it ends before. Raises FileNotFoundError."""
        ...

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        ...

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all files in a folder and below it, sorted."""
        ...

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder, sorted, without those that begin with a dot."""
        ...

    def within(self, name: str) -> "Place":
        """The tree that starts at a folder."""
        ...


class WritablePlace(Place, Protocol):
    """A place that a store can be kept in."""

    def write(self, name: str, data: bytes) -> None:
        """Write a file, whole or not at all, replacing an older one. Raises StoreWriteError."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; what is not there needs no removing."""
        ...


def is_url(text: str) -> bool:
    """Whether a store is named by a URL and not by a folder.

    >>> is_url("s3://bucket/artifacts"), is_url("artifacts")
    (True, False)
    """
    return "://" in text


def open_place(root: Path | str) -> WritablePlace:
    """The folder or bucket that `root` names; nothing is looked at or made yet. Raises StoreError for other URLs."""
    text = str(root)
    if not is_url(text):
        from avvp_pipe.store.places.folder import Folder

        return Folder(Path(text))
    scheme = text.partition("://")[0]
    if scheme not in BUCKET_SCHEMES:
        known = ", ".join(f"{one}://" for one in BUCKET_SCHEMES)
        raise StoreError(f"no store can be kept at {text}; wanted a folder, or a URL that starts with {known}")
    from avvp_pipe.store.places.bucket import open_bucket

    return open_bucket(text)


def cache_folder() -> Path:
    """Folder of what this machine may keep and can always make again.

    `AVVP_PIPE_CACHE`, else `$XDG_CACHE_HOME/avvp-pipe`, else `~/.cache/avvp-pipe`.
    """
    if given := os.environ.get("AVVP_PIPE_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "avvp-pipe"
