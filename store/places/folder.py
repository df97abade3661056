"""A folder on this machine, or on a disk that it mounts."""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from avvp_pipe.store.errors import StoreError, StoreWriteError

__all__ = ["Folder", "sync", "sync_tree"]


@dataclass(frozen=True, slots=True)
class Folder:
    """A Place in the file system. It need not exist."""

    path: Path

    @property
    def location(self) -> str:
        """The path."""
        return str(self.path)

    def read(self, name: str) -> bytes:
        """All bytes of a file. Raises StoreError for what is no file: a pipe would block."""
        with _opened(self._at(name)) as file:
            return file.read()

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start to stop."""
        with _opened(self._at(name)) as file:
            file.seek(start)
            return file.read(stop - start)

    def size(self, name: str) -> int | None:
        """Bytes of a file, None where there is none."""
        try:
            return self._at(name).stat().st_size
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                return None
            raise StoreWriteError(f"cannot read {self.path / name}: {error}") from error

    def _at(self, name: str) -> Path:
        """The path of a file in this folder. Raises StoreError for a name that leads out of it, or is none."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name or not _is_encodable(name):
            raise StoreError(f"{self.path} holds no file {name!r}: that is no name within a folder")
        return self.path / name

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all files, sorted; links count as files and are not followed into folders."""
        found = []
        for folder, folders, files in os.walk(self.path / prefix):
            links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
            found += [Path(folder, name).relative_to(self.path).as_posix() for name in (*files, *links)]
        yield from sorted(found)

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder, without those that begin with a dot."""
        try:
            entries = list(os.scandir(self.path / name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))

    def within(self, name: str) -> "Folder":
        """The tree that starts at a folder."""
        return Folder(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        """Write beside, sync, rename."""
        target = self.path / name
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _clear_abandoned(target)
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise StoreWriteError(
                f"cannot write {target}: {error}; is there space, and may you write there?"
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file or a folder."""
        target = self.path / name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise StoreWriteError(f"cannot read {path}: {error}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StoreError(f"{path} is no plain file; an artifact holds nothing else")
    return os.fdopen(descriptor, "rb")


def _is_encodable(name: str) -> bool:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _clear_abandoned(target: Path) -> None:
    """Remove what processes that are gone left of their attempts to write `target`."""
    for attempt in target.parent.glob(f"{target.name}.*.tmp"):
        pid = attempt.name.split(".")[-2]
        if pid.isdecimal() and not Path("/proc", pid).exists() and Path("/proc/self").exists():
            attempt.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(path: Path) -> None:
    """Sync a file, or a folder and all that is in it."""
    for folder, _, files in os.walk(path, topdown=False):
        for name in files:
            sync(Path(folder, name))
        sync(Path(folder))
    if path.is_file():
        sync(path)
