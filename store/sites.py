"""Building sites: where one artifact grows out of sight, who may build it, and how it becomes visible in one step.

In a folder the step is a rename. A bucket knows none: files are put under the artifact's final name as they become
whole, and the root's `zarr.json` last; without it nobody takes the name for an artifact. The journal is copied
too, and so are checkpoints, so that another machine can go on.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from avvp_pipe.store.errors import StoreWriteError
from avvp_pipe.store.integrity import METADATA
from avvp_pipe.store.journal import GROUP, JOURNAL, SCRATCH
from avvp_pipe.store.places.bucket import Bucket
from avvp_pipe.store.places.folder import Folder, sync
from avvp_pipe.store.places.locks import Holder, file_lock, is_ours, lease

if TYPE_CHECKING:
    from avvp_pipe.store.builder import Mirror

__all__ = ["BucketSite", "FolderSite", "Site", "holder_note", "lock_name", "partial_name"]

Waiting = Callable[[Holder | None], None]

BEGUN, BEGUN_THERE = "begun.json", "begun/with.json"
"""Beside the journal, here and in a bucket: what a build began with beyond what its key says."""


def partial_name(key: str) -> str:
    """The folder in which an artifact grows."""
    return f".{key}.partial"


def lock_name(key: str) -> str:
    """The lock of whoever builds it."""
    return f".{key}.lock"


def _begun(partial: Path) -> bytes | None:
    """What an unfinished build began with, if it says so."""
    note = partial / BEGUN
    return note.read_bytes() if note.is_file() else None


def holder_note(folder: Path, key: str) -> Path:
    """The file that says who holds a file lock."""
    return folder / f".{key}.holder"


class Site(Protocol):
    """What the store needs of a building site."""

    @property
    def partial(self) -> Path:
        """The local folder that the builder writes in."""
        ...

    @property
    def mirror(self) -> "Mirror | None":
        """Where finished files are copied to at once, if anywhere."""
        ...

    def lock(self, waiting: Waiting) -> AbstractContextManager[None]:
        """Be the only builder."""
        ...

    def is_built(self) -> bool:
        """Whether the artifact is visible."""
        ...

    def publish(self, root: bytes) -> None:
        """Make the artifact visible, in one step, and clear the site."""
        ...

    def make_way(self) -> None:
        """Prepare for another artifact in place of the one that is visible."""
        ...

    def begin(self, record: bytes) -> None:
        """Clear what an unfinished build left that began with another `record`."""
        ...

    def clear(self) -> None:
        """Remove what lies on the site. Only for who holds the lock."""
        ...


@dataclass(frozen=True, slots=True)
class FolderSite:
    """A site beside the artifact, in a store on this machine."""

    folder: Path
    """kind/name."""
    key: str
    mirror: None = None

    @property
    def partial(self) -> Path:
        """Hidden, beside where the artifact will be."""
        return self.folder / partial_name(self.key)

    @property
    def _older(self) -> Path:
        return self.folder / f".{self.key}.discarded"

    @contextmanager
    def lock(self, waiting: Waiting) -> Iterator[None]:
        """A file lock."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with file_lock(self.folder / lock_name(self.key), holder_note(self.folder, self.key), waiting):
            yield

    def is_built(self) -> bool:
        """Whether the folder is there with its metadata."""
        return (self.folder / self.key / METADATA).is_file()

    def make_way(self) -> None:
        """Nothing to do: the older artifact stays until the new one takes its place."""

    def begin(self, record: bytes) -> None:
        """Clear the hidden folder unless it holds this record, and note it there.

        Where a kill came between the two steps of `publish`, it holds a whole artifact, which is kept.
        """
        swapping = self._older.exists() and not self.is_built()
        if _begun(self.partial) != record and not swapping:
            self.clear()
            Folder(self.partial).write(BEGUN, record)

    def publish(self, root: bytes) -> None:
        """Rename, then sync the folder that now names the artifact; an older one goes first."""
        older = self._older
        shutil.rmtree(older, ignore_errors=not older.exists())
        if (self.folder / self.key).exists():
            (self.folder / self.key).rename(older)
        (self.partial / GROUP).rename(self.folder / self.key)
        shutil.rmtree(older, ignore_errors=not older.exists())
        for folder in (self.folder, self.folder.parent, self.folder.parent.parent):
            sync(folder)
        self.clear()

    def clear(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self.partial, ignore_errors=not self.partial.exists())


@dataclass(frozen=True, slots=True)
class BucketSite:
    """A site on this machine, for an artifact in a bucket."""

    bucket: Bucket
    """kind/name."""
    key: str
    folder: Path
    """kind/name in this machine's building folder."""
    apart: bool = False
    """Build on this machine alone and put the files at the end: the artifact that is visible is needed until then."""

    @property
    def partial(self) -> Path:
        """The local half; the other half is `.KEY.partial/` in the bucket."""
        return self.folder / partial_name(self.key)

    @property
    def mirror(self) -> "Mirror | None":
        """Itself, unless it builds apart."""
        return None if self.apart else self

    @contextmanager
    def lock(self, waiting: Waiting) -> Iterator[None]:
        """A lock on this machine, and a lease in the bucket against other machines."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            file_lock(self.folder / lock_name(self.key), holder_note(self.folder, self.key), waiting),
            lease(self.bucket, lock_name(self.key), waiting),
        ):
            if not self.is_built():
                self._take_over()
            yield

    def _take_over(self) -> None:
        """Take the bucket's journal and checkpoints for ours: they are as new as any, whoever put them there."""
        hidden = partial_name(self.key)
        names = list(self.bucket.names(hidden))
        lines = [self.bucket.read(name) for name in names if "/" not in name.removeprefix(f"{hidden}/")]
        self.partial.mkdir(parents=True, exist_ok=True)
        for name in names:
            if name.startswith(f"{hidden}/{SCRATCH}/"):
                Folder(self.folder).write(name, self.bucket.read(name))
        Folder(self.partial).write(JOURNAL, b"".join(line + b"\n" for line in lines))

    def is_built(self) -> bool:
        """Whether the object that is written last is there."""
        return self.bucket.size(f"{self.key}/{METADATA}") is not None

    def keep(self, files: Sequence[str]) -> None:
        """Put files under the artifact's final name, where nobody looks yet. Raises StoreWriteError, as do the others
        that put, where another machine took over meanwhile."""
        self._require_ours()
        for name in files:
            self.bucket.write(f"{self.key}/{name}", (self.partial / GROUP / name).read_bytes())

    def kept(self) -> frozenset[str]:
        """The files under the artifact's final name."""
        return frozenset(self.bucket.within(self.key).names())

    def save(self, name: str) -> None:
        """Put a file of the scratch folder, in place of an older one."""
        self._require_ours()
        self.bucket.write(f"{partial_name(self.key)}/{SCRATCH}/{name}", (self.partial / SCRATCH / name).read_bytes())

    def note(self, entry: Mapping[str, Any]) -> None:
        """Put one line of the journal."""
        self.bucket.write(f"{partial_name(self.key)}/{entry['start']:012}.json", json.dumps(entry).encode())

    def make_way(self) -> None:
        """Take the artifact out of sight: its files will be written over one by one, and none counts as done."""
        if self.apart:
            return
        self.bucket.remove(partial_name(self.key))
        shutil.rmtree(self.partial, ignore_errors=not self.partial.exists())
        self.bucket.remove(f"{self.key}/{METADATA}")

    def begin(self, record: bytes) -> None:
        """Clear what began otherwise, here and in the bucket, and note the record in both."""
        there = f"{partial_name(self.key)}/{BEGUN_THERE}"
        if not self.apart and (self.bucket.size(there) is None or self.bucket.read(there) != record):
            self.clear()
            self.bucket.write(there, record)
        if _begun(self.partial) != record:
            shutil.rmtree(self.partial, ignore_errors=not self.partial.exists())
            if not self.is_built():
                self._take_over()
            Folder(self.partial).write(BEGUN, record)

    def publish(self, root: bytes) -> None:
        """Put the root's metadata: from here on the artifact is there."""
        self._require_ours()
        if self.apart:
            self.bucket.remove(f"{self.key}/{METADATA}")
            self.keep([name for name in Folder(self.partial / GROUP).names() if name != METADATA])
        self.bucket.write(f"{self.key}/{METADATA}", root)
        self.clear()

    def clear(self) -> None:
        """Remove the journal in the bucket and the folder here; unpublished files go too."""
        if is_ours(self.bucket, lock_name(self.key)):
            self.bucket.remove(partial_name(self.key))
            if not self.is_built():
                self.bucket.remove(self.key)
        shutil.rmtree(self.partial, ignore_errors=not self.partial.exists())

    def _require_ours(self) -> None:
        if not is_ours(self.bucket, lock_name(self.key)):
            raise StoreWriteError(
                f"{self.bucket.location}/{self.key} is built by another machine now, since this one was not heard of "
                "for a while; run the same command again to find what it made"
            )
