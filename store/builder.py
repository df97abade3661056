"""Writing one artifact out of sight, shard by shard, so that a killed run can go on where it stopped.

The folder `.KEY.partial` holds `artifact/`, the growing Zarr group; `journal.jsonl`, the shards that are whole on
the disk, with the digests of their files; and `scratch/`, if the stage wants it. A shard is written whole by one
writer, synced, and only then noted in the journal; what the journal does not name is written again.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec

from avvp_pipe.store.errors import StoreError, StoreWriteError
from avvp_pipe.store.integrity import METADATA, digest_of_file, node_digests, sealed
from avvp_pipe.store.journal import GROUP, SCRATCH, Journal
from avvp_pipe.store.places.folder import sync, sync_tree
from avvp_pipe.store.status import CODES

if TYPE_CHECKING:
    from avvp_pipe.store.artifact import Artifact

CHECKPOINT = "checkpoint.pt"
CHUNK_BYTES = 2**18
"""Arrays are cut along their first axis into chunks of about this size: what reading one clip costs."""
FILE_CHUNKS = 128
"""Chunks of an array written with `put` that share a file."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One clip that could not be processed."""

    video_id: str
    code: str
    """One of the closed set in `status.py`."""
    message: str


class Mirror(Protocol):
    """Where files are copied to while they become whole, for stores that are not on this machine."""

    def keep(self, files: Sequence[str]) -> None:
        """Copy these files of the group."""
        ...

    def kept(self) -> Collection[str]:
        """The files of the group that lie there."""
        ...

    def note(self, entry: Mapping[str, Any]) -> None:
        """Copy a line of the journal; the files that it names were kept before."""
        ...

    def save(self, name: str) -> None:
        """Copy a file of the scratch folder."""
        ...


class Builder:
    """What a stage's `run` is handed to write with. One process at a time, guarded by the store's lock."""

    def __init__(
        self, partial: Path, *, shard_rows: int, mirror: Mirror | None = None, previous: "Artifact | None" = None
    ) -> None:
        """Open or create `partial`. shard_rows: clips in one shard, the unit of writing and of resuming."""
        self.previous = previous
        """An earlier artifact of the same step, of which what is right may be taken over."""
        self._folder = partial
        self._shard_rows = shard_rows
        self._mirror = mirror
        self._group = zarr.open_group(partial / GROUP, mode="a", zarr_format=3)
        self._rows = 0
        self._declared: dict[str, zarr.Array[Any]] = {}
        self._attributes: dict[str, Any] = {}
        self._journal = Journal(partial)
        self._journal.forget(mirror.kept().__contains__ if mirror else lambda name: (partial / GROUP / name).is_file())
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._unsettled: Future[None] | None = None

    @property
    def failures(self) -> tuple[Failure, ...]:
        """Failures noted so far, those of an earlier, killed run included, in the order of the clips."""
        self._settle()
        return tuple(Failure(**failure) for failure in self._journal.failures)

    @property
    def attributes(self) -> dict[str, Any]:
        """What the stage has described so far."""
        return self._attributes

    @property
    def resumable(self) -> bool:
        """Whether a later run could go on from here: a shard is done, or a checkpoint lies in the scratch folder."""
        with suppress(OSError, StoreError):  # asked when something went wrong already, which is what will be told
            self._settle()
        scratch = self._folder / SCRATCH
        return bool(self._journal.done) or (scratch.is_dir() and any(scratch.iterdir()))

    @property
    def scratch(self) -> Path:
        """A folder for checkpoints, kept over a kill and removed after publishing."""
        folder = self._folder / SCRATCH
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoint(self) -> Path:
        """The file in the scratch folder that a training goes on from."""
        return self.scratch / CHECKPOINT

    def saved(self) -> None:
        """Say that the checkpoint is whole, so that a run on another machine may go on from it too."""
        if self._mirror:
            self._mirror.save(CHECKPOINT)

    def describe(self, **attributes: Any) -> None:
        """Add JSON-able attributes to the artifact."""
        self._attributes.update(attributes)

    def put(self, name: str, data: NDArray[Any] | Sequence[str]) -> None:
        """Write one whole array (or a sequence of strings) under `name`, replacing what a killed run left."""
        if isinstance(data, np.ndarray):
            array, dtype = data, data.dtype.name
            if array.dtype.hasobject:
                raise StoreError(f"array {name!r} holds Python objects; an artifact holds numbers and strings only")
        else:
            array, dtype = np.array(list(data), dtype=object), "string"
        chunks, shards = _cut(array.shape, array.nbytes)
        stored = self._group.create_array(
            _checked(name),
            shape=array.shape,
            chunks=chunks,
            shards=shards,
            dtype=dtype,
            compressors=(ZstdCodec(), Crc32cCodec()),
            overwrite=True,
            config={"write_empty_chunks": True},
        )
        if array.size:
            stored[...] = array

    def declare(
        self, name: str, shape: tuple[int, ...], dtype: str, *, fill: float = 0, compressed: bool | None = None
    ) -> None:
        """Announce an array whose first axis is the clips, to be written shard by shard with `write`.

        compressed: with zstd; None compresses all but floating-point data, since embeddings do not shrink. Each
        chunk ends in a crc32c checksum. `fill` is what unwritten rows read as: NaN for features.
        """
        if self._rows and shape[0] != self._rows:
            raise StoreError(f"{name!r} has {shape[0]} rows, but the arrays declared before it have {self._rows}")
        self._rows = shape[0]
        row_bytes = max(1, math.prod(shape[1:]) * np.dtype(dtype).itemsize)
        chunk = _chunk_rows(row_bytes, self._shard_rows)
        shard = min(self._shard_rows, -(-max(shape[0], 1) // chunk) * chunk)
        if name in self._group:
            with zarr.config.set({"array.write_empty_chunks": True}):  # what is not stored cannot be verified
                begun = self._group[name]
            wanted = (*shape, np.dtype(dtype).name, chunk, shard)
            assert isinstance(begun, zarr.Array), name
            came = (*begun.shape, begun.dtype.name, begun.chunks[0], (begun.shards or begun.chunks)[0])
            if came != wanted:
                raise StoreError(
                    f"{self._folder} was begun with {name!r} of another layout, {came} where {wanted} is wanted; "
                    "remove it to build from the start: avvp-pipe gc --leftovers"
                )
            self._declared[name] = begun
            return
        compress = (ZstdCodec(),) if (np.dtype(dtype).kind != "f" if compressed is None else compressed) else ()
        self._declared[name] = self._group.create_array(
            _checked(name),
            shape=shape,
            chunks=(chunk, *shape[1:]),
            shards=(shard, *shape[1:]),
            dtype=dtype,
            fill_value=fill,
            compressors=(*compress, Crc32cCodec()),
            config={"write_empty_chunks": True},
        )
        self._synced(f"{name}/{METADATA}")

    def pending(self) -> Iterator[slice]:
        """Row ranges of the shards that are still to be written, in order."""
        self._settle()
        done = self._journal.done
        for start in range(0, self._rows, self._shard_rows):
            if start not in done:
                yield slice(start, min(start + self._shard_rows, self._rows))

    def write(self, rows: slice, arrays: Mapping[str, NDArray[Any]], *, failures: Sequence[Failure] = ()) -> None:
        """Write one shard of every declared array. It is synced and noted as done while the next one is made."""
        if sorted(arrays) != sorted(self._declared):
            raise StoreError(f"a shard needs {sorted(self._declared)}, but {sorted(arrays)} were given")
        if strange := {failure.code for failure in failures} - CODES:
            raise StoreError(
                f"unknown codes of failure {', '.join(sorted(strange))}; there are {', '.join(sorted(CODES))}"
            )
        files: list[str] = []
        for name, data in arrays.items():
            target = self._declared[name]
            if data.shape != (rows.stop - rows.start, *target.shape[1:]):
                raise StoreError(f"rows {rows.start}:{rows.stop} of {name!r} cannot take data of shape {data.shape}")
            target[rows] = data
            files.append("/".join((name, "c", str(rows.start // self._shard_rows), *("0" for _ in target.shape[1:]))))
        self._settle()
        told = [asdict(failure) for failure in failures]
        self._unsettled = self._thread.submit(self._note_shard, rows.start, files, told)

    def _note_shard(self, start: int, files: list[str], failures: list[dict[str, str]]) -> None:
        """Have the disk, and the mirror, hold the files of a shard; then, and only then, note it in the journal."""
        digests = {name: self._synced(name) for name in files}
        if self._mirror:
            self._mirror.keep(files)
        entry = self._journal.note(start, digests, failures)
        if self._mirror:
            self._mirror.note(entry)

    def _settle(self) -> None:
        """Wait until the last shard is noted; raises what went wrong in doing so."""
        unsettled, self._unsettled = self._unsettled, None
        if unsettled is not None:
            unsettled.result()

    def _synced(self, name: str) -> str:
        """Have the disk hold a file and the folders that lead to it; its digest."""
        group = self._folder / GROUP
        path = group / name
        for part in (path, *path.parents):
            sync(part)
            if part == group:
                break
        return digest_of_file(path)

    def finish(self, attributes: dict[str, Any]) -> bytes:
        """Sync and seal everything. Raises StoreError while shards are missing.

        Returns the bytes of the root's metadata, which are written last: with them the artifact is whole.
        """
        missing = list(self.pending())
        self._thread.shutdown()
        if missing:
            raise StoreError(f"the stage ended with {len(missing)} of its shards unwritten")
        group = self._folder / GROUP
        for torn in group.rglob("*.partial"):
            torn.unlink()  # an unfinished write of a killed run
        sync_tree(group)
        here = sorted(path.relative_to(group).as_posix() for path in group.rglob("*") if path.is_file())
        shards = self._journal.files
        others = [name for name in here if name != METADATA and name not in shards]
        digests = {name: digest_of_file(group / name) for name in others}
        if self._mirror:
            self._mirror.keep(others)
            if lost := sorted(set(shards) - set(self._mirror.kept())):
                raise StoreWriteError(f"{lost[0]} was removed while this was built; run the same command again")
        try:
            root = sealed(attributes, node_digests({**shards, **digests}))
        except ValueError as error:
            raise StoreError(f"the stage described something that JSON cannot hold ({error})") from error
        (group / METADATA).write_bytes(root)
        self._synced(METADATA)
        return root


def _checked(name: str) -> str:
    if "c" in name.split("/"):
        raise StoreError(f"an array cannot be called {name!r}: `c` is the folder of an array's chunks")
    return name


def _chunk_rows(row_bytes: int, shard_rows: int) -> int:
    """The most rows that come to CHUNK_BYTES, so that chunks fill a shard evenly.

    >>> _chunk_rows(10 * 768 * 2, 512), _chunk_rows(1, 512), _chunk_rows(10**9, 512)
    (16, 512, 1)
    """
    fitting = max(1, CHUNK_BYTES // row_bytes)
    return max(rows for rows in range(1, min(fitting, shard_rows) + 1) if shard_rows % rows == 0)


def _cut(shape: tuple[int, ...], size: int) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
    """Chunks, and shards where there is more than one, of an array of `size` bytes that is written at once."""
    if size <= CHUNK_BYTES or not shape:
        return tuple(max(side, 1) for side in shape), None  # a chunk has at least one row, an array may have none
    rows = max(1, shape[0] * CHUNK_BYTES // size)
    count = -(-shape[0] // rows)
    rest = shape[1:]
    return ((rows, *rest), (rows * min(count, FILE_CHUNKS), *rest)) if count > 1 else (shape, None)
