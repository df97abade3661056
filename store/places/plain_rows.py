"""Rows of an array of numbers straight from its files, many times as fast as by zarr.

    file    one chunk, or a shard: chunks, then an index of (offset, bytes) pairs and its crc32c checksum
    chunk   little-endian numbers, zstd if `compressed`, crc32c if `checksummed`

zarr reads any array, but takes a millisecond or more to open each and several copies to read it; a trained network has
hundreds. Here is the part of Zarr v3 that `store/metadata.py` lets in, for arrays that are cut along their first axis
alone, as all of ours are. Text, other cuts, and chunks that were never stored are zarr's.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError
from avvp_pipe.store.metadata import FILE_LIMIT_BYTES, ArrayFacts
from avvp_pipe.store.places import Place
from avvp_pipe.store.places.zstd_frame import check_frame

__all__ = ["NotStoredError", "bounded_size", "gone", "is_plain", "read_rows"]

Bytes = NDArray[np.uint8]
Rows = slice | int | EllipsisType
FILES_AT_ONCE = 4
CHECKSUM_BYTES = 4
NOT_STORED = 2**64 - 1


class NotStoredError(Exception):
    """A chunk of a shard was never written: it reads as the fill value, which zarr knows."""


def is_plain(facts: ArrayFacts, rows: Rows = ...) -> bool:
    """Whether `read_rows` reads these rows of the array."""
    rest = facts.shape[1:]
    cut = facts.stored_shape[1:] == rest == facts.chunk_shape[1:]
    return cut and facts.dtype != "string" and not (isinstance(rows, slice) and rows.step not in (None, 1))


def read_rows(place: Place, name: str, facts: ArrayFacts, rows: Rows = ...) -> NDArray[Any]:
    """Rows of a plain array, one, or all of it.

    Raises StoreError for bytes that are damaged, ArtifactNotFoundError for files that are gone, NotStoredError,
    IndexError where there is no such row.
    """
    if not facts.shape:
        return _decoded(_file(place, f"{name}/c"), facts).copy()
    count = facts.shape[0]
    if rows is ...:
        return _stretch(place, name, facts, 0, count)
    if isinstance(rows, slice):
        start, stop, _ = rows.indices(count)
        return _stretch(place, name, facts, start, max(start, stop))
    if not -count <= rows < count:
        raise IndexError(f"there is no row {rows}; there are {count}")
    return np.asarray(_stretch(place, name, facts, rows % count, rows % count + 1)[0])


def _stretch(place: Place, name: str, facts: ArrayFacts, start: int, stop: int) -> NDArray[Any]:
    """Rows start to stop, file by file."""
    out: NDArray[Any] = np.empty((stop - start, *facts.shape[1:]), facts.dtype)
    if not out.size:
        return out

    def fill(number: int) -> None:
        key = "/".join((name, "c", str(number), *("0" for _ in facts.shape[1:])))
        base = number * facts.stored_shape[0]
        first, last = max(start - base, 0), min(stop - base, facts.stored_shape[0])
        for row, chunk in _chunks(place, key, facts, first, last):
            low, high = max(row, first), min(row + len(chunk), last)
            out[base + low - start : base + high - start] = chunk[low - row : high - row]

    files = range(start // facts.stored_shape[0], -(-stop // facts.stored_shape[0]))
    if len(files) == 1:
        fill(files[0])
    else:
        with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
            list(pool.map(fill, files))
    return out


def _chunks(place: Place, key: str, facts: ArrayFacts, first: int, last: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """The chunks of one file that hold rows first to last of it, each with the number of its first row."""
    if not facts.sharded:
        yield 0, _decoded(_file(place, key), facts)
        return
    rows = facts.chunk_shape[0]
    wanted = range(first // rows, -(-last // rows))
    spans = _index(place, key, facts, wanted)
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    # Chunks of neighbouring rows lie side by side; where somebody stored them otherwise, each is read by itself.
    together = end - begin == sum(last - first for first, last in spans)
    whole = _range(place, key, begin, end) if together else None
    for number, (at, until) in zip(wanted, spans, strict=True):
        data = _range(place, key, at, until) if whole is None else whole[at - begin : until - begin]
        yield number * rows, _decoded(data, facts)


def _index(place: Place, key: str, facts: ArrayFacts, wanted: range) -> list[tuple[int, int]]:
    """Where some chunks of a shard begin and end. Raises NotStoredError where one of them was never written."""
    chunks = math.prod(facts.stored_shape) // math.prod(facts.chunk_shape)
    size, length = _size(place, key), 16 * chunks + CHECKSUM_BYTES
    if size < length:
        raise StoreError(f"{key} is cut off: it has {size} bytes, where its index alone takes {length}")
    pairs = _checked(_range(place, key, size - length, size)).view("<u8").reshape(-1, 2)[wanted.start : wanted.stop]
    spans = [(at, at + count) for at, count in pairs.tolist()]
    if any(at == NOT_STORED for at, _ in spans):
        raise NotStoredError
    if any(until > size - length for _, until in spans):
        raise StoreError(f"the index of {key} points beyond the chunks")
    return spans


def _decoded(data: Bytes, facts: ArrayFacts) -> NDArray[Any]:
    """One chunk, held against its checksum and its size."""
    if facts.checksummed:
        data = _checked(data)
    if facts.compressed:
        packed = data.tobytes()
        check_frame(packed, facts.chunk_bytes)
        data = np.frombuffer(Zstd().decode(packed), np.uint8)
    if data.size != facts.chunk_bytes:
        raise StoreError(f"a piece has {data.size} bytes, where {facts.chunk_bytes} belong")
    return data.view(np.dtype(facts.dtype).newbyteorder("<")).reshape(facts.chunk_shape)


def _checked(data: Bytes) -> Bytes:
    """What comes before a checksum."""
    inner = data[:-CHECKSUM_BYTES]
    if data.size < CHECKSUM_BYTES or crc32c(inner) != int.from_bytes(data[-CHECKSUM_BYTES:].tobytes(), "little"):
        raise StoreError("a checksum does not fit the bytes before it")
    return inner


def bounded_size(place: Place, key: str) -> int:
    """Bytes of a file. Raises FileNotFoundError, and StoreError where they are more than any of ours has."""
    size = place.size(key)
    if size is None:
        raise FileNotFoundError(key)
    if size > FILE_LIMIT_BYTES:
        raise StoreError(f"{place.location}/{key} is larger than {FILE_LIMIT_BYTES} bytes")
    return size


def gone(place: Place, key: str) -> ArtifactNotFoundError:
    """What to raise for chunks that are not there: an artifact has all that it says it has."""
    return ArtifactNotFoundError(f"{place.location}/{key} is missing: the artifact was removed, or it is damaged")


def _size(place: Place, key: str) -> int:
    try:
        return bounded_size(place, key)
    except FileNotFoundError:
        raise gone(place, key) from None


def _file(place: Place, key: str) -> Bytes:
    _size(place, key)
    try:
        return np.frombuffer(place.read(key), np.uint8)
    except FileNotFoundError:
        raise gone(place, key) from None


def _range(place: Place, key: str, start: int, stop: int) -> Bytes:
    try:
        return np.frombuffer(place.read_range(key, start, stop), np.uint8)
    except FileNotFoundError:
        raise gone(place, key) from None
