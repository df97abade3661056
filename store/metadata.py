"""What the metadata of an artifact may say: the part of Zarr v3 that artifacts are written in, and nothing beyond.

Files of strangers are held against this before zarr sees them, so that no shape, dtype or codec of theirs can
make a reader allocate, crash or call what it should not.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

from avvp_pipe.store.errors import StoreError

__all__ = ["FORMAT", "ArrayFacts", "check_array", "check_format", "check_root", "parse_json"]

FORMAT = 1
"""Version of the artifact format: raised when an older program could not read new artifacts, or would misread them."""

METADATA_LIMIT_BYTES = 64 * 2**20
CHUNK_LIMIT_BYTES = 2**30
FILE_LIMIT_BYTES = 2 * CHUNK_LIMIT_BYTES
"""Of any file; a shard with its index and checksums stays well below."""
TEXT_BYTES = 2**10
"""Of a string, on average over those of a chunk; the longest are paths."""
FILES_LIMIT = 2**17
"""Of one array: two million clips in shards of sixteen."""
DEPTH_LIMIT = 64
"""Of objects and lists within one another."""
AXIS_LIMIT = 2**40
_ITEM_BYTES = {
    "bool": 1, "uint8": 1, "int8": 1, "uint16": 2, "int16": 2, "uint32": 4, "int32": 4, "uint64": 8, "int64": 8,
    "float16": 2, "float32": 4, "float64": 8, "string": 16,
}  # fmt: skip
_AROUND = {"zarr_format": 3, "node_type": "array", "storage_transformers": []}
_ENCODING = {"name": "default", "configuration": {"separator": "/"}}
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


@dataclass(frozen=True, slots=True)
class ArrayFacts:
    """One array as its metadata describe it."""

    shape: tuple[int, ...]
    dtype: str
    """A Zarr v3 data type; `string` for text."""
    stored_shape: tuple[int, ...]
    """Of one file: a chunk, or a shard of chunks."""
    chunk_shape: tuple[int, ...]
    """Of what is encoded as one piece."""
    sharded: bool
    """Whether a file holds chunks and an index of them, and not one chunk alone."""
    compressed: bool
    """Whether chunks are compressed (zstd)."""
    checksummed: bool
    """Whether every chunk ends in a crc32c checksum."""

    @property
    def decoded_bytes(self) -> int:
        """Of the whole array in memory; for text, what it may come to."""
        return math.prod(self.shape) * (TEXT_BYTES if self.dtype == "string" else _ITEM_BYTES[self.dtype])

    @property
    def chunk_bytes(self) -> int:
        """Of one chunk when decoded; not of text."""
        return math.prod(self.chunk_shape) * _ITEM_BYTES[self.dtype]


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """A JSON object out of the bytes of a metadata file. Raises StoreError."""
    try:
        document = json.loads(data, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
        _require_flat(document, DEPTH_LIMIT)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is not readable JSON ({error}); the artifact is damaged") from error
    if not isinstance(document, dict):
        raise StoreError(f"{where} holds a {type(document).__name__}, where an object of metadata is wanted")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no number of JSON")
    return number


def _require_flat(node: Any, depth: int) -> None:
    """Refuse what is nested so deep that code that walks through it would fail."""
    if isinstance(node, dict | list):
        if not depth:
            raise ValueError(f"nested deeper than {DEPTH_LIMIT} times")
        for one in node.values() if isinstance(node, dict) else node:
            _require_flat(one, depth - 1)


def check_root(document: dict[str, Any], where: str) -> dict[str, Any]:
    """The attributes of an artifact's root group. Raises StoreError where it is no Zarr v3 group."""
    attributes = document.get("attributes")
    if document.get("zarr_format") != 3 or document.get("node_type") != "group" or not isinstance(attributes, dict):
        raise StoreError(f"{where} is not the metadata of a Zarr v3 group with attributes; this is no artifact")
    return attributes


def check_format(attributes: dict[str, Any], where: str) -> None:
    """Raise StoreError for an artifact of a format that this program does not read."""
    version = attributes.get("format")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise StoreError(f"{where} names no artifact format (wanted a version number, came {version!r})")
    if version > FORMAT:
        raise StoreError(
            f"{where} has artifact format {version}, and this program reads up to {FORMAT}: install a newer avvp-pipe"
        )


def check_array(document: dict[str, Any], where: str) -> ArrayFacts:
    """The facts of an array from its metadata. Raises StoreError naming what is not allowed."""
    try:
        return _array_facts(document)
    except _WrongError as wrong:
        raise StoreError(f"{where}: {wrong}; artifacts hold no such arrays") from None


class _WrongError(Exception):
    """What is wrong with an array's metadata, in words."""


def _array_facts(document: dict[str, Any]) -> ArrayFacts:
    for name, wanted in _AROUND.items():
        if document.get(name, wanted if name == "storage_transformers" else None) != wanted:
            raise _WrongError(f"{name} is {document.get(name)!r}, not {wanted!r}")
    dtype = document.get("data_type")
    if not isinstance(dtype, str) or dtype not in _ITEM_BYTES:
        raise _WrongError(f"data type {dtype!r} is none of {', '.join(_ITEM_BYTES)}")
    shape = _sides(document.get("shape"), "shape", at_least=0)
    stored = _sides(_named(document.get("chunk_grid"), "chunk_grid", "regular").get("chunk_shape"), "chunk_shape")
    if document.get("chunk_key_encoding") != _ENCODING:
        raise _WrongError(f"chunk_key_encoding is {document.get('chunk_key_encoding')!r}, not {_ENCODING!r}")
    codecs = document.get("codecs")
    chunk = stored
    sharded = _is_sharded(codecs)
    if sharded:
        chunk, codecs = _sharding(codecs, stored)
    _check_sizes(shape, chunk, stored, dtype)
    _check_fill(document.get("fill_value"), dtype)
    known = {*_AROUND, "shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"}
    if strange := set(document) - known - {"attributes", "dimension_names"}:
        raise _WrongError(f"unknown members {', '.join(sorted(strange))}")
    if not isinstance(document.get("attributes", {}), dict):
        raise _WrongError("attributes are no object")
    names = document.get("dimension_names")
    if names is not None and not (isinstance(names, list) and len(names) == len(shape)):
        raise _WrongError(f"dimension_names {names!r} do not fit {len(shape)} axes")
    if names is not None and not all(name is None or isinstance(name, str) for name in names):
        raise _WrongError(f"dimension_names {names!r} are not names")
    compressed, checksummed = _check_codecs(codecs, dtype)
    return ArrayFacts(shape, dtype, stored, chunk, sharded=sharded, compressed=compressed, checksummed=checksummed)


def _is_sharded(codecs: Any) -> bool:
    first = codecs[0] if isinstance(codecs, list) and codecs else None
    return isinstance(first, dict) and first.get("name") == "sharding_indexed"


def _sharding(codecs: Any, stored: tuple[int, ...]) -> tuple[tuple[int, ...], Any]:
    if len(codecs) != 1:
        raise _WrongError("codecs around a shard")
    inner = _named(codecs[0], "codecs", "sharding_indexed")
    if inner.get("index_codecs") != _INDEX_CODECS or inner.get("index_location", "end") != "end":
        raise _WrongError("a shard's index is encoded in another way than with a crc32c checksum at the end")
    if strange := set(inner) - {"chunk_shape", "codecs", "index_codecs", "index_location"}:
        raise _WrongError(f"unknown members {', '.join(sorted(strange))} of a shard")
    chunk = _sides(inner.get("chunk_shape"), "chunk_shape")
    if len(chunk) != len(stored) or any(side % part for side, part in zip(stored, chunk, strict=True)):
        raise _WrongError(f"shards of {list(stored)} cannot be cut into chunks of {list(chunk)}")
    if math.prod(side // part for side, part in zip(stored, chunk, strict=True)) > 2**20:
        raise _WrongError("more than a million chunks in one shard")
    return chunk, inner.get("codecs")


def _named(value: Any, what: str, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(value) - {"name", "configuration"} or value.get("name") != name:
        raise _WrongError(f"{what} is {value!r}, not {name}")
    configuration = value.get("configuration")
    if not isinstance(configuration, dict):
        raise _WrongError(f"{what} has no configuration")
    return configuration


def _sides(value: Any, what: str, *, at_least: int = 1) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 8:
        raise _WrongError(f"{what} is {value!r}, not a list of at most 8 numbers")
    for side in value:
        if isinstance(side, bool) or not isinstance(side, int) or not at_least <= side <= AXIS_LIMIT:
            raise _WrongError(f"{what} {value!r} has sides outside {at_least} to {AXIS_LIMIT}")
    return tuple(value)


def _check_sizes(shape: tuple[int, ...], chunk: tuple[int, ...], stored: tuple[int, ...], dtype: str) -> None:
    if not len(shape) == len(stored) == len(chunk):
        raise _WrongError(f"chunks {list(stored)} do not fit the shape {list(shape)}")
    if math.prod(stored) * _ITEM_BYTES[dtype] > CHUNK_LIMIT_BYTES:
        raise _WrongError(f"one chunk of {list(stored)} {dtype} is larger than {CHUNK_LIMIT_BYTES} bytes")
    if math.prod(-(-side // part) for side, part in zip(shape, stored, strict=True)) > FILES_LIMIT:
        raise _WrongError(f"the shape {list(shape)} takes more than {FILES_LIMIT} files of {list(stored)}")


def _check_fill(value: Any, dtype: str) -> None:
    if dtype == "string":
        fits = value == ""
    elif dtype == "bool":
        fits = isinstance(value, bool)
    elif dtype.startswith("float"):
        fits = value in ("NaN", "Infinity", "-Infinity") or (
            isinstance(value, int | float) and not isinstance(value, bool)
        )
    else:
        bits, signed = 8 * _ITEM_BYTES[dtype], dtype.startswith("int")
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    if not fits:
        raise _WrongError(f"fill_value {value!r} does not fit {dtype}")


def _check_codecs(codecs: Any, dtype: str) -> tuple[bool, bool]:
    """Check the chain of one chunk, and tell whether it compresses, and whether it ends in a checksum."""
    if not isinstance(codecs, list) or not 1 <= len(codecs) <= 3:
        raise _WrongError(f"codecs are {codecs!r}")
    first = {"name": "bytes", "configuration": {"endian": "little"}}
    plain = (
        ({"name": "vlen-utf8", "configuration": {}}, {"name": "vlen-utf8"})
        if dtype == "string"
        else (first, {"name": "bytes"})
    )
    if codecs[0] not in plain or (codecs[0] == {"name": "bytes"} and _ITEM_BYTES[dtype] > 1):
        raise _WrongError(f"codec {codecs[0]!r} does not fit {dtype}")
    rest = codecs[1:]
    compressed = bool(rest) and isinstance(rest[0], dict) and rest[0].get("name") == "zstd"
    if compressed:
        level = _named(rest[0], "codec", "zstd")
        if set(level) - {"level", "checksum"} or type(level.get("level")) is not int or abs(level["level"]) > 22:
            raise _WrongError(f"zstd is set to {level!r}")
        if type(level.get("checksum", False)) is not bool:
            raise _WrongError(f"zstd is set to {level!r}")
        rest = rest[1:]
    if rest not in ([], [{"name": "crc32c"}]):
        raise _WrongError(f"codecs {rest!r} are not among zstd, crc32c")
    return compressed, bool(rest)
