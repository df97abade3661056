"""A bucket of an object store, through obstore, and the cache of what was read from it.

Credentials come from the environment alone (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`,
`AWS_ENDPOINT` …, or the machine's role); a URL that carries any is refused. An object appears whole or not at all.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from avvp_pipe.store.errors import StoreError, StoreWriteError
from avvp_pipe.store.places import Place, cache_folder
from avvp_pipe.store.places.folder import Folder

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["Bucket", "Cached", "open_bucket"]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A Place in an object store. `prefix`: where in `client` it starts, empty or ending in `/`."""

    location: str
    client: "ObjectStore" = field(repr=False, compare=False)
    prefix: str = ""

    def read(self, name: str) -> bytes:
        """All bytes of an object."""
        import obstore

        with _said("read", self, name):
            return bytes(obstore.get(self.client, self.prefix + name).bytes())

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start to stop of an object."""
        import obstore

        with _said("read", self, name):
            return bytes(obstore.get_range(self.client, self.prefix + name, start=start, end=stop))

    def size(self, name: str) -> int | None:
        """Bytes of an object, None where there is none."""
        import obstore

        try:
            with _said("read", self, name):
                return int(obstore.head(self.client, self.prefix + name)["size"])
        except FileNotFoundError:
            return None

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all objects below a folder, sorted."""
        import obstore

        below = self.prefix + (f"{prefix}/" if prefix else "")
        with _said("list", self, prefix):
            pages = list(obstore.list(self.client, below or None))
        yield from sorted(item["path"].removeprefix(self.prefix) for page in pages for item in page)

    def folders(self, name: str) -> list[str]:
        """Names that have objects below them, without those that begin with a dot."""
        import obstore

        with _said("list", self, name):
            listed = obstore.list_with_delimiter(self.client, f"{self.prefix}{name}/")
        found = [prefix.rstrip("/").rpartition("/")[2] for prefix in listed["common_prefixes"]]
        return sorted(name for name in found if not name.startswith("."))

    def within(self, name: str) -> "Bucket":
        """What lies below a name."""
        return Bucket(f"{self.location}/{name}", self.client, f"{self.prefix}{name}/")

    def write(self, name: str, data: bytes) -> None:
        """Put an object; it replaces an older one in one step."""
        self._put(name, data, "overwrite")

    def create(self, name: str, data: bytes) -> str | None:
        """Put an object where none is. The new object's tag, or None where there is one already."""
        return self._put(name, data, "create")

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """Put an object in place of exactly the one with this tag. The new tag, or None where it is another."""
        return self._put(name, data, {"e_tag": tag})

    def _put(self, name: str, data: bytes, mode: Any) -> str | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        try:
            with _said("write", self, name):
                return obstore.put(self.client, self.prefix + name, data, mode=mode)["e_tag"]
        except (AlreadyExistsError, PreconditionError):
            return None

    def tag(self, name: str) -> str | None:
        """The tag that changes with an object's content, None where there is no object."""
        import obstore

        try:
            with _said("read", self, name):
                return obstore.head(self.client, self.prefix + name)["e_tag"]
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove an object and everything below it."""
        import obstore

        paths = [self.prefix + found for found in self.names(name)]
        with _said("remove", self, name), suppress(FileNotFoundError):
            obstore.delete(self.client, [self.prefix + name, *paths])


@contextmanager
def _said(verb: str, bucket: Bucket, name: str) -> Iterator[None]:
    """Turn what obstore raises into a StoreError that names the object, short of its inner details."""
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    place = f"{bucket.location}/{name}"
    try:
        yield
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise StoreWriteError(f"cannot {verb} {place}: there is no such bucket; make it first") from error
        raise FileNotFoundError(f"no object {place}") from error
    except (AlreadyExistsError, PreconditionError):
        raise
    except BaseError as error:
        said = str(error).partition("\n")[0]
        raise StoreWriteError(
            f"cannot {verb} {place}: {said}; check the URL, the network and the credentials in the environment"
        ) from error


def open_bucket(url: str) -> Bucket:
    """The bucket and prefix that a URL names, with credentials from the environment. Raises StoreError."""
    parts = urlsplit(url)
    if parts.username or parts.password or parts.query or "@" in parts.netloc:
        raise StoreError(
            f"the store's URL {parts.scheme}://…{parts.path} carries credentials or options; "
            "give scheme://bucket/folder, and credentials in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION)"
        )
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url

        location = url.rstrip("/")
        try:
            client = from_url(location)
        except (BaseError, ValueError) as error:
            raise StoreError(f"cannot open {url}: {str(error).partition(chr(10))[0]}") from error
    except ImportError as error:
        raise StoreError(f"{url} needs obstore, which is not installed; run: pip install obstore") from error
    return Bucket(location, client)


@dataclass(frozen=True, slots=True)
class Cached:
    """A place whose files never change, kept file by file in a folder of this machine once they were read."""

    origin: Place
    folder: Folder

    @property
    def location(self) -> str:
        """Where the files come from."""
        return self.origin.location

    def read(self, name: str) -> bytes:
        """All bytes, from the cache where it has them."""
        with suppress(OSError, StoreError):  # not there yet, or the cache is of no use: that costs speed, not the read
            return self.folder.read(name)
        data = self.origin.read(name)
        with suppress(StoreWriteError):
            self.folder.write(name, data)
        return data

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Some bytes; the file they are in is cached whole."""
        with suppress(OSError, StoreError):
            return self.folder.read_range(name, start, stop)
        return self.read(name)[start:stop]

    def size(self, name: str) -> int | None:
        """Bytes of a file."""
        with suppress(StoreError):
            if (cached := self.folder.size(name)) is not None:
                return cached
        return self.origin.size(name)

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all files, as the origin has them."""
        return self.origin.names(prefix)

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder."""
        return self.origin.folders(name)

    def within(self, name: str) -> "Cached":
        """The tree that starts at a folder."""
        return Cached(self.origin.within(name), self.folder.within(name))


def cached(origin: Place, *, mark: bytes) -> Cached:
    """`origin` with its cache. `mark`: what changes if the files are ever other ones, here the root metadata."""
    digest = hashlib.sha256(mark).hexdigest()[:16]
    place = hashlib.sha256(origin.location.encode()).hexdigest()[:16]
    return Cached(origin, Folder(cache_folder() / "read" / f"{place}-{digest}"))


def building_folder(url: str) -> Path:
    """Where this machine builds what will be put into the bucket."""
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    return cache_folder() / "building" / f"{os.path.basename(url)}-{name}"
