"""Arrays of numbers are read straight from their files, and come out as zarr reads them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, ZstdCodec

from avvp_pipe.store import StoreError
from avvp_pipe.store.errors import ArtifactNotFoundError
from avvp_pipe.store.metadata import check_array, parse_json
from avvp_pipe.store.places.folder import Folder
from avvp_pipe.store.places.plain_rows import NotStoredError, is_plain, read_rows
from avvp_pipe.store.places.zarr_view import open_array

DTYPES = ("float32", "uint8", "bool", "int64", "float16")


def written(folder: Path, data: np.ndarray[Any, Any], **layout: Any) -> tuple[Folder, Any]:
    """One array `x`, and its facts."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    stored = group.create_array("x", shape=data.shape, dtype=data.dtype, config={"write_empty_chunks": True}, **layout)
    if data.size:
        stored[...] = data
    return Folder(folder), facts_of(folder)


def facts_of(folder: Path) -> Any:
    return check_array(parse_json((folder / "x" / "zarr.json").read_bytes(), "x"), "x")


@st.composite
def arrays(draw: Callable[..., Any]) -> tuple[np.ndarray[Any, Any], dict[str, Any]]:
    """An array of any size, cut along its first axis in any way."""
    rest = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    rows, chunk, chunks = draw(st.integers(0, 23)), draw(st.integers(1, 7)), draw(st.integers(0, 4))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    data = (random.standard_normal((rows, *rest)) * 3).astype(draw(st.sampled_from(DTYPES)))
    codecs = [*([ZstdCodec()] if draw(st.booleans()) else []), *([Crc32cCodec()] if draw(st.booleans()) else [])]
    shards = {"shards": (chunk * chunks, *rest)} if chunks else {}
    return data, {"chunks": (chunk, *rest), "compressors": codecs, **shards}


@settings(max_examples=60, deadline=None)
@given(array=arrays(), start=st.integers(-25, 25), stop=st.integers(-25, 25), row=st.integers(-25, 25))
def test_any_rows_of_any_array_are_those_that_zarr_reads(
    tmp_path_factory: pytest.TempPathFactory, array: Any, start: int, stop: int, row: int
) -> None:
    data, layout = array
    place, facts = written(tmp_path_factory.mktemp("array"), data, **layout)
    assert is_plain(facts)
    by_zarr = open_array(place, "x")
    for rows in (..., slice(None), slice(start, stop)):
        found = read_rows(place, "x", facts, rows)
        np.testing.assert_array_equal(found, np.asarray(by_zarr[rows]))
        np.testing.assert_array_equal(found, data[rows])
        assert found.dtype == data.dtype
        assert found.flags.writeable
    if -len(data) <= row < len(data):
        np.testing.assert_array_equal(read_rows(place, "x", facts, row), data[row])
    else:
        with pytest.raises(IndexError, match="there is no row"):
            read_rows(place, "x", facts, row)


def test_a_number_without_axes_is_read(tmp_path: Path) -> None:
    place, facts = written(tmp_path, np.array(2.5, np.float32), chunks=())
    assert read_rows(place, "x", facts).item() == 2.5
    assert read_rows(place, "x", facts).shape == ()


@pytest.mark.parametrize("layout", [{"chunks": (4, 2)}, {"chunks": (2, 2), "shards": (4, 4)}])
def test_an_array_cut_along_another_axis_is_left_to_zarr(tmp_path: Path, layout: dict[str, Any]) -> None:
    _, facts = written(tmp_path, np.zeros((4, 4), np.float32), **layout)
    assert not is_plain(facts)


def test_every_second_row_and_text_are_left_to_zarr(tmp_path: Path) -> None:
    _, facts = written(tmp_path, np.zeros((4, 4), np.float32), chunks=(2, 4))
    assert is_plain(facts, slice(0, 4))
    assert not is_plain(facts, slice(0, 4, 2))
    group = zarr.open_group(tmp_path / "text", mode="w", zarr_format=3)
    group.create_array("x", shape=(2,), dtype="string", chunks=(2,))[...] = np.array(["a", "b"], dtype=object)
    assert not is_plain(facts_of(tmp_path / "text"))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("compressed", [False, True])
def test_one_changed_byte_anywhere_is_an_error(tmp_path: Path, sharded: bool, compressed: bool) -> None:
    codecs = [*([ZstdCodec()] if compressed else []), Crc32cCodec()]
    layout = {"chunks": (4, 3), "compressors": codecs, **({"shards": (8, 3)} if sharded else {})}
    place, facts = written(tmp_path, np.arange(24, dtype=np.float32).reshape(8, 3), **layout)
    (file, *_) = sorted((tmp_path / "x" / "c").rglob("0/0"))
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(StoreError):
            read_rows(place, "x", facts)
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            read_rows(place, "x", facts)


def test_an_index_that_points_out_of_its_file_is_an_error(tmp_path: Path) -> None:
    place, facts = written(tmp_path, np.zeros((4, 2), np.float32), chunks=(2, 2), shards=(4, 2), compressors=[])
    _write_index(tmp_path, [(0, 2**40), (16, 16)])
    with pytest.raises(StoreError, match="points beyond the chunks"):
        read_rows(place, "x", facts)


def test_chunks_in_any_order_within_a_shard_are_found(tmp_path: Path) -> None:
    data = np.arange(8, dtype=np.float32).reshape(4, 2)
    place, facts = written(tmp_path, data, chunks=(1, 2), shards=(4, 2), compressors=[])
    shard = tmp_path / "x" / "c" / "0" / "0"
    chunks = shard.read_bytes()[:32]
    shard.write_bytes(chunks[24:32] + chunks[8:16] + b"unused!!" + chunks[16:24] + chunks[:8] + bytes(68))
    _write_index(tmp_path, [(32, 8), (8, 8), (24, 8), (0, 8)])
    for rows in (..., slice(1, 3), slice(0, 2)):
        np.testing.assert_array_equal(read_rows(place, "x", facts, rows), data[rows])


def test_a_chunk_that_was_never_stored_is_left_to_zarr(tmp_path: Path) -> None:
    data = np.ones((4, 2), np.float32)
    place, facts = written(tmp_path, data, chunks=(2, 2), shards=(4, 2), fill_value=7, compressors=[])
    _write_index(tmp_path, [(0, 16), (2**64 - 1, 2**64 - 1)])
    np.testing.assert_array_equal(read_rows(place, "x", facts, slice(0, 2)), data[:2])
    with pytest.raises(NotStoredError):
        read_rows(place, "x", facts)
    np.testing.assert_array_equal(np.asarray(open_array(place, "x")[...])[2:], np.full((2, 2), 7))


def test_a_file_that_is_gone_is_told(tmp_path: Path) -> None:
    place, facts = written(tmp_path, np.zeros((4, 2), np.float32), chunks=(2, 2))
    (tmp_path / "x" / "c" / "1" / "0").unlink()
    assert len(read_rows(place, "x", facts, slice(0, 2))) == 2
    with pytest.raises(ArtifactNotFoundError, match="x/c/1/0 is missing"):
        read_rows(place, "x", facts)


def _write_index(folder: Path, spans: list[tuple[int, int]]) -> None:
    """Replace the index of the first shard."""
    from google_crc32c import value

    shard = folder / "x" / "c" / "0" / "0"
    index = np.array(spans, "<u8").tobytes()
    chunks = shard.read_bytes()[: -(len(index) + 4)]
    shard.write_bytes(chunks + index + value(index).to_bytes(4, "little"))
