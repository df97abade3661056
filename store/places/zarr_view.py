"""How zarr reads from a Place: a read-only store over any tree of files, with decompression kept within bounds."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

import zarr
import zarr.codecs
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.codecs import ZstdCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
from zarr.registry import register_codec

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.metadata import TEXT_BYTES
from avvp_pipe.store.places import Place
from avvp_pipe.store.places.plain_rows import bounded_size, gone
from avvp_pipe.store.places.zstd_frame import check_frame

__all__ = ["open_array"]

TEXT_SLACK_BYTES = 64 * 2**10
"""So much more may a chunk of text come to, for those of few but long strings."""


def open_array(place: Place, name: str) -> "zarr.Array[Any]":
    """Open an array whose metadata were found to be sound, for reading."""
    with zarr.config.set({f"codecs.{name}": f"{__name__}.{codec.__name__}" for name, codec in _BOUNDED.items()}):
        return zarr.open_array(PlaceStore(place), path=name, mode="r", zarr_format=3)


class PlaceStore(Store):
    """zarr's store interface over a Place; reads only, and takes a chunk that is missing for the damage that it is.

    An artifact has all its chunks. zarr would read one that is gone as so many fill values, silently.
    """

    def __init__(self, place: Place) -> None:
        """`place`: the tree to read."""
        super().__init__(read_only=True)
        self._place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlaceStore) and other._place == self._place

    def __str__(self) -> str:
        return self._place.location

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Bytes of a file or of a part of it, None where there is none."""
        try:
            data = await asyncio.to_thread(self._read, key, byte_range)
        except FileNotFoundError:
            if "c" in key.split("/"):
                raise gone(self._place, key) from None
            return None
        return prototype.buffer.from_bytes(data)

    def _read(self, key: str, wanted: ByteRequest | None) -> bytes:
        if wanted is None:
            bounded_size(self._place, key)
            return self._place.read(key)
        if isinstance(wanted, RangeByteRequest):
            return self._place.read_range(key, wanted.start, wanted.end)
        size = self._place.size(key)
        if size is None:
            raise FileNotFoundError(key)
        if isinstance(wanted, OffsetByteRequest):
            return self._place.read_range(key, wanted.offset, size)
        assert isinstance(wanted, SuffixByteRequest), wanted
        return self._place.read_range(key, max(0, size - wanted.suffix), size)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Several parts at once."""
        return list(await asyncio.gather(*(self.get(key, prototype, wanted) for key, wanted in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        return await asyncio.to_thread(self._place.size, key) is not None

    @property
    def supports_writes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """Never."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Always."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Refused."""
        raise StoreError(f"{self._place.location} is read only")

    async def delete(self, key: str) -> None:
        """Refused."""
        raise StoreError(f"{self._place.location} is read only")

    async def list(self) -> AsyncIterator[str]:
        """All names."""
        for name in self._place.names():
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """All names that begin so."""
        for name in self._place.names():
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Names directly below a folder."""
        below = f"{prefix.rstrip('/')}/" if prefix else ""
        inside = (name.removeprefix(below) for name in self._place.names() if name.startswith(below))
        for name in sorted({name.partition("/")[0] for name in inside}):
            yield name


@dataclass(frozen=True)
class BoundedZstd(ZstdCodec):
    """zstd that looks at what a frame says it will decode to before decoding it: no bomb goes off."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        item, count = getattr(chunk_spec.dtype, "item_size", None), math.prod(chunk_spec.shape)
        room = count * item if isinstance(item, int) else count * TEXT_BYTES + TEXT_SLACK_BYTES
        check_frame(chunk_bytes.to_bytes(), room)
        return await super()._decode_single(chunk_bytes, chunk_spec)


@dataclass(frozen=True)
class VLenUTF8Codec(zarr.codecs.VLenUTF8Codec):
    """Strings, decoded only where there are as many as belong there. zarr knows the codec of strings by this name."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        declared, wanted = int.from_bytes(chunk_bytes.to_bytes()[:4], "little"), math.prod(chunk_spec.shape)
        if declared != wanted:
            raise StoreError(f"a piece of text says that it holds {declared} strings; {wanted} belong there")
        return await super()._decode_single(chunk_bytes, chunk_spec)


_BOUNDED = {"zstd": BoundedZstd, "vlen-utf8": VLenUTF8Codec}
for _name, _codec in _BOUNDED.items():
    register_codec(_name, _codec)
