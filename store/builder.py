"""Writing one artifact out of sight, shard by shard, so that a killed run can go on where it stopped.

The folder `.KEY.partial` holds the growing Zarr group, a journal of finished shards and, if the stage
wants one, a scratch folder. A shard is written whole by one writer, and only then noted in the journal;
what the journal does not name is written again. Publishing is in `store.py`.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from avvp_pipe.store.errors import StoreError

JOURNAL = ".journal.jsonl"
SCRATCH = ".scratch"


@dataclass(frozen=True, slots=True)
class Failure:
    """One clip that could not be processed."""

    video_id: str
    code: str
    """One of the closed set in `stages/media/errors.py`."""
    message: str


class Builder:
    """What a stage's `run` is handed to write with. One process at a time, guarded by the store's lock."""

    def __init__(self, partial: Path, *, shard_rows: int) -> None:
        """Open or create `partial`. `shard_rows`: clips in one shard, the unit of writing and of resuming."""
        self._partial = partial
        self._shard_rows = shard_rows
        self._group = zarr.open_group(partial, mode="a", zarr_format=3)
        self._rows = 0
        self._declared: list[str] = []
        self._attributes: dict[str, Any] = {}
        self._done, self._failures = _read_journal(partial / JOURNAL)

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Failures noted so far, those of an earlier, killed run included."""
        return tuple(self._failures)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the stage has described so far."""
        return self._attributes

    @property
    def resumable(self) -> bool:
        """Whether a later run could go on from here: a shard is done, or a checkpoint lies in the scratch folder."""
        scratch = self._partial / SCRATCH
        return bool(self._done) or (scratch.is_dir() and any(scratch.iterdir()))

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints, kept over a kill and removed before publishing."""
        folder = self._partial / SCRATCH
        folder.mkdir(exist_ok=True)
        return folder

    def describe(self, **attributes: Any) -> None:
        """Add JSON-able attributes to the artifact."""
        self._attributes.update(attributes)

    def put(self, name: str, data: NDArray[Any] | Sequence[str]) -> None:
        """Write one whole array (or a sequence of strings) under `name`, replacing what a killed run left."""
        if isinstance(data, np.ndarray):
            array, dtype = data, data.dtype.str
            if array.dtype.hasobject:
                raise StoreError(f"array {name!r} holds Python objects; an artifact holds numbers and strings only")
        else:
            array, dtype = np.array(list(data), dtype=object), "string"
        # A chunk has at least one row, an array may have none.
        stored = self._group.create_array(
            name,
            shape=array.shape,
            chunks=tuple(max(size, 1) for size in array.shape),
            dtype=dtype,
            compressors=(ZstdCodec(), Crc32cCodec()),
            overwrite=True,
        )
        if array.size:
            stored[...] = array

    def declare(self, name: str, shape: tuple[int, ...], dtype: str, *, fill: float = 0, chunk_rows: int = 16) -> None:
        """Announce an array whose first axis is the clips, to be written shard by shard with `write`.

        Floating-point data stay uncompressed (embeddings do not shrink), everything else is zstd; each
        chunk ends in a crc32c checksum. `fill` is what unwritten rows read as: NaN for features.
        """
        if self._rows and shape[0] != self._rows:
            raise StoreError(f"{name!r} has {shape[0]} rows, but the arrays declared before it have {self._rows}")
        self._rows = shape[0]
        self._declared.append(name)
        if name in self._group:
            return
        chunk = min(chunk_rows, self._shard_rows)
        compress = () if np.dtype(dtype).kind == "f" else (ZstdCodec(),)
        self._group.create_array(
            name,
            shape=shape,
            chunks=(chunk, *shape[1:]),
            shards=(self._shard_rows, *shape[1:]),
            dtype=dtype,
            fill_value=fill,
            compressors=(*compress, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )

    def pending(self) -> Iterator[slice]:
        """Row ranges of the shards that are still to be written, in order."""
        for start in range(0, self._rows, self._shard_rows):
            if start not in self._done:
                yield slice(start, min(start + self._shard_rows, self._rows))

    def write(self, rows: slice, arrays: Mapping[str, NDArray[Any]], *, failures: Sequence[Failure] = ()) -> None:
        """Write one shard of every declared array and note it as done."""
        if sorted(arrays) != sorted(self._declared):
            raise StoreError(f"a shard needs {sorted(self._declared)}, but {sorted(arrays)} were given")
        for name, data in arrays.items():
            target = self._group[name]
            if not isinstance(target, zarr.Array) or data.shape != (
                rows.stop - rows.start,
                *target.shape[1:],
            ):
                raise StoreError(f"rows {rows.start}:{rows.stop} of {name!r} cannot take data of shape {data.shape}")
            target[rows] = data
        entry = {"start": rows.start, "failures": [asdict(failure) for failure in failures]}
        with (self._partial / JOURNAL).open("a") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._done.add(rows.start)
        self._failures.extend(failures)

    def finish(self, attributes: dict[str, Any]) -> None:
        """Write the attributes. Raises StoreError while shards are missing."""
        if missing := list(self.pending()):
            raise StoreError(f"the stage ended with {len(missing)} of its shards unwritten")
        # In sorted order, so that the bytes do not depend on the order in which options were given.
        self._group.attrs.put(json.loads(json.dumps(attributes, sort_keys=True)))


def _read_journal(path: Path) -> tuple[set[int], list[Failure]]:
    done: set[int] = set()
    failures: list[Failure] = []
    if not path.exists():
        return done, failures
    whole = 0
    for line in path.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break  # the kill came in the middle of this line; its shard is written again
        entry = json.loads(line)
        done.add(entry["start"])
        failures.extend(Failure(**failure) for failure in entry["failures"])
        whole += len(line)
    os.truncate(path, whole)
    return done, failures
