"""An artifact as the files of a layout: what released code reads, or what was once imported, byte for byte.

Clips that failed have no files; the caller says which they are (`failed_clips`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.layouts.npy import npy_bytes
from avvp_pipe.store.layouts.table import NATIVE, Layout, Single, Stream
from avvp_pipe.store.layouts.tree import FileIds, short_id
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.store.artifact import Artifact

ROWS_AT_ONCE = 256
PLAIN_DTYPE = re.compile(r"[<>|=]?[biuf][1248]")
Ids = Literal["auto", "whole", "youtube"]


def good_rows(artifact: "Artifact") -> NDArray[np.intp]:
    """Rows of the clips that could be processed."""
    return np.flatnonzero(artifact.array("status") == Status.OK)


def failed_clips(artifact: "Artifact") -> tuple[str, ...]:
    """Ids of the clips that have no files in an export."""
    names = artifact.strings("video_ids")
    return tuple(names[row] for row in np.flatnonzero(artifact.array("status") != Status.OK))


def file_ids(artifact: "Artifact", asked: Ids) -> FileIds:
    """How files are named: as asked; `auto`: as they were when imported, else by YouTube ids, as released code does."""
    if asked != "auto":
        return asked
    return "whole" if artifact.attrs.get("file_ids") == "whole" else "youtube"


def file_stems(artifact: "Artifact", ids: FileIds) -> tuple[str, ...]:
    """The name of each clip's files, without ending. Raises StoreError where clips would share one."""
    names = artifact.strings("video_ids")
    stems = names if ids == "whole" else tuple(short_id(name) for name in names)
    owner: dict[str, str] = {}
    for row in good_rows(artifact):
        stem, name = stems[row], names[row]
        if owner.setdefault(stem, name) != name:
            raise StoreError(
                f"{owner[stem]} and {name} would both be {stem}.npy; name files by whole ids (--ids whole)"
            )
        if not stem or stem in (".", "..") or set(stem) & set("/\\\0"):
            raise StoreError(f"clip {name!r} cannot be the name of a file; give it an id without / and \\")
    return stems


def tree_files(
    artifact: "Artifact", layout: Layout, *, ids: Ids = "auto", any_width: bool = False
) -> Iterator[tuple[str, bytes]]:
    """(path, bytes) of every file of `layout`, one block of clips at a time.

    Shapes and dtypes are the layout's; the dtypes, order and names of imported files are kept. Raises StoreError where
    the artifact lacks an array, or where its shapes are not the layout's (`any_width`: the second axis may differ).
    """
    stems = file_stems(artifact, file_ids(artifact, ids))
    classes = len(artifact.attrs["classes"])
    for stream in layout.streams:
        _require_array(artifact, layout, stream.array)
    for single in layout.singles:
        if single.required:
            _require_array(artifact, layout, single.array)
        if single.array in artifact:
            yield _single_name(artifact, single), _encoded(artifact, single, artifact.array(single.array))
    for stream in layout.streams:
        width = None if any_width else (stream.width or classes)
        yield from _stream_files(artifact, layout, stream, stems, width)


def _stream_files(
    artifact: "Artifact", layout: Layout, stream: Stream, stems: Sequence[str], width: int | None
) -> Iterator[tuple[str, bytes]]:
    stored, lengths = _rows_of_files(artifact, stream)
    folder = f"{stream.folder}/" if stream.folder else ""
    chosen = set(good_rows(artifact).tolist())
    for start in range(0, len(stems), ROWS_AT_ONCE):
        rows = [row for row in range(start, min(start + ROWS_AT_ONCE, len(stems))) if row in chosen]
        if not rows:
            continue
        block = artifact.rows(stored, slice(start, start + ROWS_AT_ONCE))
        for row in rows:
            array = block[row - start] if lengths is None else block[row - start, : lengths[row]]
            if stream.rows not in (None, array.shape[0]) or width not in (None, array.shape[1]):
                raise StoreError(
                    f"{stems[row]} in {artifact.reference} has {stream.array} of shape {array.shape}, but a file of "
                    f"the layout {layout.name} has ({stream.rows or 'rows'}, {width or 'width'}); such features cannot "
                    "stand in for the released ones (--any-width lets the second axis differ)"
                )
            yield f"{folder}{stems[row]}{stream.ending}", _encoded(artifact, stream, array)


def _rows_of_files(artifact: "Artifact", stream: Stream) -> tuple[str, NDArray[Any] | None]:
    """Which array holds the rows of the files, and how many rows each clip has (None: all)."""
    native = f"{NATIVE}{stream.array}"
    if native in artifact:
        return native, artifact.array(f"{native}_lengths")
    return stream.array, artifact.array("lengths") if stream.timed else None


def _require_array(artifact: "Artifact", layout: Layout, name: str) -> None:
    if name not in artifact:
        raise StoreError(
            f"{artifact.reference} has no array {name!r}, which the {layout.kind} layout {layout.name} holds; "
            f"it has {', '.join(artifact.array_names())}"
        )


def _single_name(artifact: "Artifact", single: Single) -> str:
    return _kept(artifact, "file_names", single.array) or single.files[0]


def _encoded(artifact: "Artifact", part: Stream | Single, array: NDArray[Any]) -> bytes:
    """An array as a file: in the dtype and order it was imported in, else in the layout's."""
    dtype = _kept(artifact, "file_dtypes", part.array) or part.dtype
    if not PLAIN_DTYPE.fullmatch(dtype):
        raise StoreError(f"{artifact.reference} asks for {part.array} to be written as {dtype!r}; wanted plain numbers")
    fortran = _kept(artifact, "file_orders", part.array) == "F"
    return npy_bytes(np.asarray(array, dtype=dtype, order="F" if fortran else "C"))


def _kept(artifact: "Artifact", attribute: str, name: str) -> str | None:
    """What an import noted about the files of an array; None for what was made here."""
    record = artifact.attrs.get(attribute)
    found = record.get(name) if isinstance(record, Mapping) else None
    return found if isinstance(found, str) else None
