"""A folder of exported files: written beside its place and put there whole."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from avvp_pipe.store.errors import StoreError, StoreWriteError


def require_free(out: Path) -> None:
    """Raise StoreError unless `out` is yet to be made or is an empty folder."""
    if os.path.lexists(out) and not (out.is_dir() and not out.is_symlink() and not any(out.iterdir())):
        raise StoreError(f"{out} is there already and is not an empty folder; name one that is not there yet")


def write_folder(out: Path, files: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """Write (path below `out`, bytes) pairs into a folder beside `out`, then rename it. Returns files and bytes.

    `out` must not be there or be empty. Whatever is raised, by `files` too, `out` stays as it was. Raises StoreError
    for a path that leaves the folder or comes twice, StoreWriteError where nothing can be written.
    """
    require_free(out)
    growing = out.absolute().with_name(f".{out.absolute().name}.{os.getpid()}.partial")
    count = size = 0
    try:
        growing.mkdir(parents=True)
        for name, data in files:
            target = growing / _safe(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                raise StoreError(f"two files of the export would be {name}; name them by whole ids (--ids whole)")
            target.write_bytes(data)
            count, size = count + 1, size + len(data)
        os.sync()  # once for all: there may be tens of thousands of files
        growing.rename(out.absolute())
    except OSError as error:
        raise StoreWriteError(f"cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(growing, ignore_errors=True)
    return count, size


def _safe(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or "\\" in name or not path.parts:
        raise StoreError(f"{name!r} cannot be the name of an exported file: it would leave the folder")
    return name
