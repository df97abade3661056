"""Metadata of arrays: what artifacts are written in passes, everything else is refused in words before zarr sees it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Builder, StoreError
from avvp_pipe.store.metadata import check_array, parse_json

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def documents(tmp_path: Path) -> dict[str, dict[str, Any]]:
    """Metadata as a builder writes them, of each sort of array."""
    builder = Builder(tmp_path, shard_rows=8)
    builder.put("text", ["a", "b"])
    builder.put("numbers", np.arange(6.0).reshape(2, 3))
    builder.declare("sharded", (40, 10), "uint8")
    return {path.parent.name: json.loads(path.read_bytes()) for path in tmp_path.glob("artifact/*/zarr.json")}


def sharding(document: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = document["codecs"][0]["configuration"]
    return configuration


def test_what_a_builder_writes_passes(documents: dict[str, dict[str, Any]]) -> None:
    facts = {name: check_array(document, name) for name, document in documents.items()}
    assert {name: (one.shape, one.dtype, one.checksummed) for name, one in facts.items()} == {
        "text": ((2,), "string", True),
        "numbers": ((2, 3), "float64", True),
        "sharded": ((40, 10), "uint8", True),
    }
    assert facts["sharded"].stored_shape == (8, 10)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("numbers", lambda given: given.update(zarr_format=2), "zarr_format is 2"),
        ("numbers", lambda given: given.update(node_type="group"), "node_type is 'group'"),
        ("numbers", lambda given: given.update(storage_transformers=[{"name": "x"}]), "storage_transformers is"),
        ("numbers", lambda given: given.update(data_type="variable_length_bytes"), "is none of bool"),
        ("numbers", lambda given: given.update(shape=[2, True]), "sides outside 0"),
        ("numbers", lambda given: given.update(shape=[2, 2**41]), "sides outside 0"),
        ("numbers", lambda given: given.update(shape=[1] * 9), "not a list of at most 8 numbers"),
        ("numbers", lambda given: given.update(shape=[2]), r"do not fit the shape \[2\]"),
        (
            "numbers",
            lambda given: given["chunk_grid"]["configuration"].update(chunk_shape=[2**20, 2**20]),
            "one chunk of .* is larger than",
        ),
        ("numbers", lambda given: given["chunk_key_encoding"].update(name="v2"), "chunk_key_encoding is"),
        ("numbers", lambda given: given.update(fill_value="0x7fc00000"), "fill_value '0x7fc00000' does not fit"),
        ("sharded", lambda given: given.update(fill_value=256), "fill_value 256 does not fit uint8"),
        ("sharded", lambda given: given.update(fill_value=-1), "fill_value -1 does not fit uint8"),
        ("text", lambda given: given.update(fill_value=0), "fill_value 0 does not fit string"),
        ("numbers", lambda given: given.update(extensions=[]), "unknown members extensions"),
        ("numbers", lambda given: given.update(dimension_names=["a"]), "do not fit 2 axes"),
        ("numbers", lambda given: given.update(dimension_names=["a", 1]), "are not names"),
        ("numbers", lambda given: given["codecs"].__setitem__(2, {"name": "adler32"}), "are not among zstd, crc32c"),
        ("numbers", lambda given: given["codecs"].insert(1, {"name": "gzip"}), "codecs"),
        ("numbers", lambda given: given["codecs"][0]["configuration"].update(endian="big"), "does not fit float64"),
        ("numbers", lambda given: given["codecs"][1]["configuration"].update(level=10**9), "zstd is set to"),
        ("text", lambda given: given["codecs"].__setitem__(0, {"name": "bytes"}), "does not fit string"),
        ("sharded", lambda given: sharding(given).update(chunk_shape=[3, 10]), "cannot be cut into chunks"),
        ("sharded", lambda given: sharding(given).update(index_location="start"), "a shard's index"),
        ("sharded", lambda given: sharding(given).update(index_codecs=[]), "a shard's index"),
        ("sharded", lambda given: given["codecs"].append({"name": "crc32c"}), "codecs around a shard"),
        ("sharded", lambda given: sharding(given).update(more=1), "unknown members more of a shard"),
    ],
)
def test_everything_else_is_refused_in_words(
    documents: dict[str, dict[str, Any]], name: str, change: Change, message: str
) -> None:
    change(documents[name])
    with pytest.raises(StoreError, match=message):
        check_array(documents[name], name)


def test_a_shard_of_more_than_a_million_chunks_is_refused(documents: dict[str, dict[str, Any]]) -> None:
    document = documents["sharded"]
    document["chunk_grid"]["configuration"]["chunk_shape"] = [2**21, 1]
    document["shape"] = [2**21, 1]
    sharding(document)["chunk_shape"] = [1, 1]
    with pytest.raises(StoreError, match="more than a million chunks"):
        check_array(document, "sharded")


@pytest.mark.parametrize("text", [b'{"a": 1, "a": 1}', b'{"a": {"b": 1, "b": 2}}', b"[1]", b"{", b"\xff", b"[" * 10**5])
def test_text_that_is_no_single_object_is_refused(text: bytes) -> None:
    with pytest.raises(StoreError):
        parse_json(text, "zarr.json")
