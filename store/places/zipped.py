"""A zip file read in place, and the one way of packing it.

A released zip comes from strangers. Nothing is ever extracted: members are read where they lie. Before anything
is read the table of contents must be plain: relative names of a known alphabet, no name twice, no links, nothing
compressed or encrypted, no two members over the same bytes, and no more than LIMIT_BYTES in all.
"""

import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from avvp_pipe.store.errors import StoreError, StoreWriteError

__all__ = ["LIMIT_BYTES", "LIMIT_MEMBERS", "Zipped", "open_zip", "pack"]

LIMIT_BYTES = 16 * 2**30
"""Of one zip. LLP's labels take 20 MB, those of a million clips some GB."""
LIMIT_MEMBERS = 100_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]*(/[A-Za-z0-9_][A-Za-z0-9._+-]*)*")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Zipped:
    """A Place inside a zip. `members`: name -> (first byte, size) in the file."""

    path: Path
    members: Mapping[str, tuple[int, int]]
    prefix: str = ""

    @property
    def location(self) -> str:
        """The file's path."""
        return str(self.path) + (f"!{self.prefix}" if self.prefix else "")

    def read(self, name: str) -> bytes:
        """All bytes of a member."""
        start, size = self._member(name)
        return self._bytes(start, size)

    def read_range(self, name: str, start: int, stop: int) -> bytes:
        """Bytes start to stop of a member."""
        first, size = self._member(name)
        return self._bytes(first + start, max(0, min(stop, size) - start))

    def _member(self, name: str) -> tuple[int, int]:
        if self.prefix + name not in self.members:
            raise FileNotFoundError(f"no {self.prefix}{name} in {self.path}")
        return self.members[self.prefix + name]

    def _bytes(self, start: int, size: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(size)

    def size(self, name: str) -> int | None:
        """Bytes of a member, None where there is none."""
        found = self.members.get(self.prefix + name)
        return found[1] if found else None

    @cached_property
    def _names(self) -> list[str]:
        return sorted(name.removeprefix(self.prefix) for name in self.members if name.startswith(self.prefix))

    def names(self, prefix: str = "") -> Iterator[str]:
        """Names of all members in a folder and below it."""
        yield from (name for name in self._names if not prefix or name.startswith(f"{prefix}/"))

    def folders(self, name: str) -> list[str]:
        """Names of the folders in a folder."""
        below = f"{name}/" if name else ""
        inside = [found.removeprefix(below) for found in self._names if found.startswith(below)]
        return sorted({found.partition("/")[0] for found in inside if "/" in found})

    def within(self, name: str) -> "Zipped":
        """The tree that starts at a folder."""
        return Zipped(self.path, self.members, f"{self.prefix}{name}/")


def open_zip(path: Path) -> Zipped:
    """Read and check a zip's table of contents, and nothing else. Raises StoreError saying what is wrong with it."""
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is no plain file; a released zip is one")  # a pipe would block
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > LIMIT_MEMBERS:
                raise StoreError(f"{path} holds {len(infos)} files, more than the {LIMIT_MEMBERS} that are read")
            for info in infos:
                _check_member(path, info)
            _check_together(path, infos)
            return Zipped(
                path, {info.filename: (_first_byte(path, file.fileno(), info), info.file_size) for info in infos}
            )
    except FileNotFoundError:
        raise StoreError(f"no file {path}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, struct.error, NotImplementedError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is not a zip that can be read ({error}); it may be cut off: get it again") from error
    except (ValueError, OSError, OverflowError, IndexError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} cannot be read as a zip ({error})") from error


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name, mode = info.orig_filename, info.external_attr >> 16
    if not _NAME.fullmatch(name) or ".." in name.split("/"):
        raise StoreError(
            f"{path} holds a file named {name!r}; wanted relative names of letters, digits and . _ + - only; "
            "this is no released zip, do not unpack it"
        )
    if stat.S_ISLNK(mode):
        raise StoreError(f"{path}: {name} is a symbolic link; a released zip holds plain files only")
    if info.flag_bits & 0x1:
        raise StoreError(f"{path}: {name} is encrypted; a released zip is not")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise StoreError(f"{path}: {name} is compressed; a released zip stores its files as they are")


def _check_together(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    if len({info.filename for info in infos}) != len(infos):
        raise StoreError(f"{path} holds two files of one name; it was tampered with, or badly made")
    declared, real = sum(info.file_size for info in infos), path.stat().st_size
    if declared > LIMIT_BYTES or declared > real:
        raise StoreError(
            f"{path} declares {declared} bytes of files; "
            f"wanted at most {LIMIT_BYTES}, and no more than the file's own {real}"
        )
    placed = sorted(infos, key=lambda info: info.header_offset)
    for info, after in pairwise(placed):
        if info.header_offset + _LOCAL_HEADER.size + info.file_size > after.header_offset:
            raise StoreError(f"{path}: {info.filename} and {after.filename} lie over one another; it was tampered with")


def _first_byte(path: Path, descriptor: int, info: zipfile.ZipInfo) -> int:
    header = _LOCAL_HEADER.unpack(os.pread(descriptor, _LOCAL_HEADER.size, info.header_offset))
    if header[0] != b"PK\x03\x04":
        raise StoreError(f"{path}: {info.filename} does not begin where the table of contents says")
    return int(info.header_offset + _LOCAL_HEADER.size + header[9] + header[10])


def pack(target: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """Write a zip of stored files, whole or not at all: same files, same bytes. Raises StoreWriteError."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
                for name, data in files:
                    info = zipfile.ZipInfo(name, _EPOCH)
                    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
                    archive.writestr(info, data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(target)
    except OSError as error:
        raise StoreWriteError(f"cannot write {target}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
