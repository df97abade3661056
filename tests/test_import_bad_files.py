"""Files of strangers that cannot be trusted are refused by name, and nothing of them becomes visible in the store."""

import contextlib
import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.store import Store, StoreError
from avvp_pipe.store.layouts.export import file_stems
from avvp_pipe.store.layouts.npy import FILE_LIMIT_BYTES, npy_bytes, read_header, read_npy
from tests import trees

NAMES = trees.clip_names(4)
STEMS = [name[:11] for name in NAMES]
GOOD = npy_bytes(np.ones((10, 512), np.float32))
Spoil = Callable[[Path], object]


def header_of(shape: str, dtype: str = "'<f4'") -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def with_value(value: float) -> bytes:
    array = np.ones((10, 512), np.float32)
    array[4, 17] = value
    return npy_bytes(array)


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def swallowed(path: Path) -> None:
    """A link to a file outside the tree."""
    outside = path.parents[3] / "secret.npy"
    outside.write_bytes(GOOD)
    path.unlink()
    path.symlink_to(outside)


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def writes(data: bytes) -> Spoil:
    return lambda path: path.write_bytes(data)


FAULTS: dict[str, tuple[Spoil, str]] = {
    "objects": (writes(saved(np.array([{}], object))), "object"),
    "records": (writes(saved(np.zeros(10, [("a", "f4")]))), r"dtype \[\('a', '<f4'\)\]"),
    "texts": (writes(saved(np.array(["a"] * 10))), "dtype <U1"),
    "complex": (writes(saved(np.ones((10, 512), complex))), "complex128"),
    "long floats": (writes(saved(np.ones((10, 512), np.longdouble))), "longdouble|float128"),
    "a pickle": (writes(pickle.dumps(np.ones((10, 512)))), "not a .npy file"),
    "an npz": (writes(b"PK\x03\x04" + GOOD), "not a .npy file"),
    "nothing": (writes(b""), "not a .npy file"),
    "cut off": (writes(GOOD[:-1]), "20480 bytes, but 20479 bytes follow"),
    "cut in the header": (writes(GOOD[:40]), "not a .npy file"),
    "too much": (writes(GOOD + b"\0"), "20481 bytes follow"),
    "one width off": (writes(saved(np.ones((10, 511), np.float32))), r"shape \(10, 511\); wanted \(rows, 512\)"),
    "one axis": (writes(saved(np.ones(5120, np.float32))), r"shape \(5120,\)"),
    "three axes": (writes(saved(np.ones((1, 10, 512), np.float32))), r"shape \(1, 10, 512\)"),
    "no rows": (writes(saved(np.ones((0, 512), np.float32))), r"shape \(0, 512\)"),
    "too many rows": (writes(saved(np.ones((321, 512), np.float32))), "321 rows; .* at most 320"),
    "NaN": (writes(with_value(np.nan)), r"1 values that are NaN or infinite, the first at \[4, 17\]"),
    "infinite": (writes(with_value(-np.inf)), "NaN or infinite"),
    "another dtype": (writes(saved(np.ones((10, 512)))), "float64 but .* is float32"),
    "a bomb": (writes(header_of("(1000000000, 512)")), "declares an array .* 2048000000000 bytes, but 0 bytes follow"),
    "negative": (writes(header_of("(-10, -512)") + GOOD[128:]), "declares an array"),
    "not a shape": (writes(header_of("('a', 3)")), "not a .npy file"),
    "code": (writes(header_of("__import__('os').system('true')")), "not a .npy file"),
    "deep header": (writes(header_of("(" * 5000 + ")" * 5000)), "not a .npy file"),
    "a link outwards": (swallowed, "a link that leads out of"),
    "a pipe": (a_pipe, "not a regular file"),
    "a folder": (a_folder, "not a regular file"),
}


@pytest.fixture
def world(tmp_path: Path) -> tuple[Any, Path]:
    """A store with the dataset, and UWAV's feature tree."""
    store = trees.make_dataset(tmp_path, dict.fromkeys(NAMES, 10))
    for folder, width in (("CLIP", 768), ("CLAP", 512)):
        for stem in STEMS:
            trees.save(tmp_path / f"tree/feats_{folder}/segment_feats/{stem}.npy", np.ones((10, width), np.float32))
    return store, tmp_path / "tree"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_feature_file_is_refused_by_name(world: tuple[Any, Path], fault: str) -> None:
    store, tree = world
    spoil, message = FAULTS[fault]
    spoil(tree / f"feats_CLAP/segment_feats/{STEMS[2]}.npy")
    with pytest.raises(StoreError, match=message) as caught:
        trees.imported(store, "features", "uwav", tree)
    assert f"feats_CLAP/segment_feats/{STEMS[2]}.npy" in str(caught.value)
    assert trees.visible(store) == ["dataset"]
    assert not list((store.root / "features").rglob("zarr.json"))


def test_a_file_over_the_limit_is_not_read(world: tuple[Any, Path]) -> None:
    store, tree = world
    os.truncate(tree / f"feats_CLAP/segment_feats/{STEMS[0]}.npy", FILE_LIMIT_BYTES + 1)  # a hole, not written out
    with pytest.raises(StoreError, match=f"more than {FILE_LIMIT_BYTES} is not read"):
        trees.imported(store, "features", "uwav", tree)


def test_a_bad_file_ends_the_command_with_its_name_and_code_2(
    world: tuple[Any, Path], avvp: Callable[..., Any]
) -> None:
    store, tree = world
    (tree / f"feats_CLIP/segment_feats/{STEMS[0]}.npy").write_bytes(b"no")
    ran = avvp("import-features", "--dataset", "clips", "--source", tree, "--store", store.root)
    assert ran.code == 2
    assert STEMS[0] in ran.err


@settings(deadline=None, max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 400),
)
def test_no_change_of_a_file_crashes_the_reader_or_unpickles(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(npy_bytes(np.arange(36, dtype=np.float32).reshape(9, 4)))
    for place, value in changes:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "mutated.npy"
    path.write_bytes(data[: len(data) - cut] if cut < len(data) else data)
    with contextlib.suppress(StoreError):
        header, array = read_header(path), read_npy(path)
        assert (array.shape, array.dtype) == (header.shape, header.dtype)
        assert array.dtype.kind in "biuf"
        assert array.nbytes <= len(data)


def test_two_clips_with_one_youtube_id_cannot_share_a_file(tmp_path: Path) -> None:
    names = ["aaaaaaaaaaa_0_10", "aaaaaaaaaaa_10_20", "bbbbbbbbbbb_0_10"]
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    for stem in ("aaaaaaaaaaa", "bbbbbbbbbbb"):
        for folder, width in (("CLIP", 768), ("CLAP", 512)):
            trees.save(tmp_path / f"feats_{folder}/segment_feats/{stem}.npy", trees.numbers(10, width))
    with pytest.raises(StoreError, match=r"belongs to two clips, aaaaaaaaaaa_0_10 and aaaaaaaaaaa_10_20"):
        trees.imported(store, "features", "uwav", tmp_path)


def two_of_one_video(folder: Path) -> Any:
    """A store whose first two clips are two samples of one video, as some of AVE's are."""
    lines = [
        json.dumps({"id": name, "path": f"{name[:11]}.mp4", "split": "train", "labels": ["Dog"]})
        for name in ("aaaaaaaaaaa_0", "aaaaaaaaaaa_1", "bbbbbbbbbbb_2")
    ]
    (folder / "clips.jsonl").write_text("\n".join(lines))
    store = Store(folder / "store")
    run_step(store, Step("dataset", "clips", {"source": str(folder / "clips.jsonl")}), progress=trees.Told())
    return store


def test_samples_of_one_video_share_its_features(tmp_path: Path) -> None:
    store, told = two_of_one_video(tmp_path), trees.Told()
    for seed, stem in enumerate(("aaaaaaaaaaa", "bbbbbbbbbbb")):
        for folder, width in (("CLIP", 768), ("CLAP", 512)):
            trees.save(tmp_path / f"feats_{folder}/segment_feats/{stem}.npy", trees.numbers(10, width, seed=seed))
    features = trees.imported(store, "features", "uwav", tmp_path, told).artifact
    assert "3 of 3 clips have all files" in told.text
    assert "1 clips have the files of another clip of the same video" in told.text
    for name in ("audio", "visual"):
        one, other, third = features.array(name)
        assert np.array_equal(one, other)
        assert not np.array_equal(one, third)
    with pytest.raises(StoreError, match=r"aaaaaaaaaaa_0 and aaaaaaaaaaa_1 would both be .*--ids whole"):
        file_stems(features, "youtube")


def test_samples_of_one_video_do_not_share_labels(tmp_path: Path) -> None:
    store = two_of_one_video(tmp_path)
    trees.valor_labels(tmp_path, ["aaaaaaaaaaa", "bbbbbbbbbbb"], np.ones((2, 1), bool))
    with pytest.raises(StoreError, match="belongs to two clips, aaaaaaaaaaa_0 and aaaaaaaaaaa_1"):
        trees.imported(store, "labels", "valor", tmp_path)


def test_names_in_two_ways_are_refused(world: tuple[Any, Path]) -> None:
    store, tree = world
    (tree / f"feats_CLIP/segment_feats/{STEMS[0]}.npy").rename(tree / f"feats_CLIP/segment_feats/{NAMES[0]}.npy")
    with pytest.raises(StoreError, match="names files in two ways"):
        trees.imported(store, "features", "uwav", tree)


def test_a_folder_that_is_no_such_tree_is_refused_with_what_was_wanted(world: tuple[Any, Path]) -> None:
    store, tree = world
    with pytest.raises(StoreError, match=r"wanted CLIP/features, CLAP/features .* it holds feats_CLAP, feats_CLIP"):
        trees.imported(store, "features", "valor", tree)
    with pytest.raises(StoreError, match="is not a folder"):
        trees.imported(store, "features", "uwav", tree / "nowhere")
    with pytest.raises(ValueError, match="--source FOLDER"):
        trees.imported(store, "features", "uwav", "")


def test_two_trees_in_one_folder_are_refused(world: tuple[Any, Path]) -> None:
    store, tree = world
    for folder in ("CLIP", "CLAP"):
        (tree / f"LLP/feats_{folder}/segment_feats").mkdir(parents=True)
    with pytest.raises(StoreError, match="several trees"):
        trees.imported(store, "features", "uwav", tree)


def test_a_tree_of_other_clips_is_refused(world: tuple[Any, Path]) -> None:
    store, tree = world
    for path in sorted(tree.rglob("*.npy")):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(StoreError, match=r"no file .* is named after a clip"):
        trees.imported(store, "features", "uwav", tree)


def test_event_texts_of_one_modality_or_of_other_classes_are_refused(world: tuple[Any, Path]) -> None:
    store, tree = world
    trees.save(tree / "feats_CLIP/event_feats/all_event_feats.npy", trees.numbers(3, 768))
    with pytest.raises(StoreError, match="add feats_CLAP/event_feats/all_event_feats"):
        trees.imported(store, "features", "uwav", tree)
    trees.save(tree / "feats_CLAP/event_feats/all_event_feats.npy", trees.numbers(25, 512))
    with pytest.raises(StoreError, match=r"wanted floats of shape \(3, 512\).*\(25, 512\)"):
        trees.imported(store, "features", "uwav", tree)


def test_features_of_whole_numbers_are_refused(world: tuple[Any, Path]) -> None:
    store, tree = world
    for path in (tree / "feats_CLAP").rglob("*.npy"):
        trees.save(path, np.ones((10, 512), np.int64))
    with pytest.raises(StoreError, match="holds int64; features are floats"):
        trees.imported(store, "features", "uwav", tree)


LABEL_FAULTS: dict[str, tuple[str, Any, str]] = {
    "not 0 or 1": (
        "a_segmentwise_pseudo_labels/{}.npy",
        np.full((10, 3), 0.5, np.float32),
        r"holds \[0.5\]; wanted hard",
    ),
    "minus zero": ("a_segmentwise_pseudo_labels/{}.npy", np.full((10, 3), -0.0, np.float32), "holds -0.0; wanted hard"),
    "too few seconds": ("v_segmentwise_logits/{}.npy", np.zeros((9, 3), np.float32), "9 seconds, but the clip has 10"),
    "other classes": ("v_segmentwise_logits/{}.npy", np.zeros((10, 25), np.float32), r"\(10, 25\); wanted \(rows, 3\)"),
    "NaN logits": ("a_segmentwise_logits/{}.npy", np.full((10, 3), np.nan, np.float32), "30 values that are NaN"),
    "NaN thresholds": ("a_classwise_threhsolds.npy", np.full(3, np.nan, np.float32), "3 values that are NaN"),
    "few thresholds": ("v_classwise_threhsolds.npy", np.zeros(2, np.float32), r"wanted floats of shape \(3,\)"),
    "no thresholds": ("v_classwise_threhsolds.npy", None, "v_classwise_threhsolds.npy is missing"),
    "both spellings": ("a_classwise_thresholds.npy", np.zeros(3, np.float32), "are both there"),
}


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_a_bad_label_file_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    store = trees.make_dataset(tmp_path, dict.fromkeys(NAMES, 10))
    trees.uwav_labels(tmp_path / "run", STEMS, store.get("dataset/clips").array("weak"))
    name, array, message = LABEL_FAULTS[fault]
    path = tmp_path / "run" / name.format(STEMS[1])
    if array is None:
        path.unlink()
    else:
        trees.save(path, array)
    with pytest.raises(StoreError, match=message) as caught:
        trees.imported(store, "labels", "uwav", tmp_path / "run")
    assert path.name in str(caught.value)
    assert trees.visible(store) == ["dataset"]
