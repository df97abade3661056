"""What was made here leaves in the layouts that released code reads, whole or not at all."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import StoreError, load_labels
from avvp_pipe.store.layouts.folder import write_folder
from tests import trees


@pytest.fixture
def export(finished_demo: Any, avvp: Callable[..., Any], tmp_path: Path) -> Any:
    """`export(reference, layout)` exports from the demo into tmp_path/out."""

    def run(reference: str, layout: str, *more: str) -> Any:
        return avvp(
            "export", reference, "--layout", layout, "--out", tmp_path / "out", "--store", finished_demo.store, *more
        )

    return run


def test_uwavs_label_files_have_the_released_names_shapes_and_dtypes(
    finished_demo: Any, export: Any, tmp_path: Path
) -> None:
    """Names with their misspelling, (T, C) float32 and (C,) float32, as UWAV's generator script saves them."""
    assert export("labels/uwav", "uwav").code == 0
    labels = load_labels("uwav", store=finished_demo.store)
    folders = (
        "a_segmentwise_logits",
        "a_segmentwise_pseudo_labels",
        "v_segmentwise_logits",
        "v_segmentwise_pseudo_labels",
    )
    singles = ("a_classwise_threhsolds.npy", "v_classwise_threhsolds.npy")
    wanted = {f"{folder}/{name[:11]}.npy" for folder in folders for name in labels.video_ids} | set(singles)
    assert set(trees.contents(tmp_path / "out")) == wanted
    for row, name in enumerate(labels.video_ids):
        for letter, modality in (("a", "audio"), ("v", "visual")):
            logits = np.load(tmp_path / f"out/{letter}_segmentwise_logits/{name[:11]}.npy")
            hard = np.load(tmp_path / f"out/{letter}_segmentwise_pseudo_labels/{name[:11]}.npy")
            assert (logits.dtype, hard.dtype) == (np.float32, np.float32)
            np.testing.assert_array_equal(logits, getattr(labels, f"{modality}_logits")[row])
            np.testing.assert_array_equal(hard, getattr(labels, f"{modality}_hard")[row].astype(np.float32))
    np.testing.assert_array_equal(np.load(tmp_path / "out" / singles[0]), labels.audio_thresholds)


def test_valors_label_files_are_int64_zeros_and_ones(finished_demo: Any, export: Any, tmp_path: Path) -> None:
    assert export("labels/valor", "valor", "--ids", "whole").code == 0
    labels = load_labels("valor", store=finished_demo.store)
    for teacher, hard in (("CLAP", labels.audio_hard), ("CLIP", labels.visual_hard)):
        for row, name in enumerate(labels.video_ids):
            file = np.load(tmp_path / f"out/{teacher}/segment_pseudo_labels/{name}.npy")
            assert file.dtype == np.int64
            np.testing.assert_array_equal(file, hard[row])


def test_own_features_leave_with_their_event_texts(finished_demo: Any, export: Any, tmp_path: Path, avvp: Any) -> None:
    assert export("features/target", "uwav", "--any-width").code == 0
    from avvp_pipe.store import Store

    made = Store(finished_demo.store).get("features/target")
    name = made.strings("video_ids")[0]
    file = np.load(tmp_path / f"out/feats_CLAP/segment_feats/{name[:11]}.npy")
    np.testing.assert_array_equal(file, made.array("audio")[0])
    texts = np.load(tmp_path / "out/feats_CLIP/event_feats/all_event_feats.npy")
    np.testing.assert_array_equal(texts, made.array("text_visual/uwav"))


def test_own_features_of_another_width_come_back_as_they_left(
    finished_demo: Any, export: Any, tmp_path: Path, avvp: Any
) -> None:
    assert export("features/target", "uwav", "--any-width").code == 0
    shutil.copytree(finished_demo.store / "dataset", tmp_path / "store" / "dataset")
    command = ("import-features", "--dataset", "target", "--source", tmp_path / "out", "--store", tmp_path / "store")
    refused = avvp(*command, "--json")
    assert (refused.code, "wanted (rows, 768)" in refused.document["error"]) == (2, True)
    taken = avvp(*command, "--widths", "any", "--json")
    assert taken.document["artifact"].startswith("features/target-imported-uwav@")
    again = tmp_path / "again"
    back = ("features/target-imported-uwav", "--layout", "uwav", "--any-width", "--out", again)
    assert avvp("export", *back, "--store", tmp_path / "store").code == 0
    assert trees.contents(again) == trees.contents(tmp_path / "out")


def test_a_released_zip_leaves_as_its_labels_do(finished_demo: Any, export: Any, tmp_path: Path, avvp: Any) -> None:
    assert export("labels/uwav", "uwav").code == 0
    released, out = tmp_path / "uwav.zarr.zip", tmp_path / "theirs"
    assert avvp("labels", "release", "uwav", "--out", released, "--store", finished_demo.store).code == 0
    assert avvp("export", released, "--layout", "uwav", "--out", out, "--store", tmp_path / "none").code == 0
    assert trees.contents(out) == trees.contents(tmp_path / "out")


@pytest.mark.parametrize(
    ("reference", "layout", "message"),
    [
        ("features/target", "uwav", "--any-width"),
        ("features/target", "llp-csv", "has no audio_hard and no visual_hard"),
        ("labels/uwav", "classic", "no layout 'classic' for labels"),
        ("scores/labels-uwav", "uwav", "no layout 'uwav' for scores"),
        ("features/target", "valor", "no array 'audio_map'"),
    ],
)
def test_what_a_layout_cannot_hold_is_refused_and_nothing_is_written(
    export: Any, tmp_path: Path, reference: str, layout: str, message: str
) -> None:
    ran = export(reference, layout)
    assert ran.code == 2
    assert message in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_never_written_into(export: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export("labels/uwav", "llp-csv").code == 0  # an empty one will do
    before = trees.contents(tmp_path / "out")
    again = export("labels/valor", "llp-csv")
    assert again.code == 2
    assert "not an empty folder" in again.err
    assert trees.contents(tmp_path / "out") == before


def test_clips_that_would_share_a_file_are_refused_until_whole_ids_are_asked_for(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    names = ["aaaaaaaaaaa_0_10", "aaaaaaaaaaa_10_20"]
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    trees.valor_labels(tmp_path / "theirs", names, store.get("dataset/clips").array("weak"))
    trees.imported(store, "labels", "valor", tmp_path / "theirs")
    where = ("labels/theirs", "--layout", "valor", "--out", tmp_path / "out", "--store", store.root)
    refused = avvp("export", *where, "--ids", "youtube")
    assert refused.code == 2
    assert "aaaaaaaaaaa_0_10 and aaaaaaaaaaa_10_20 would both be aaaaaaaaaaa.npy" in refused.err
    assert avvp("export", *where).code == 0  # the names they came with
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "theirs")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "", "a\\b", "a\0b"])
def test_no_file_leaves_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="would leave the folder"):
        write_folder(tmp_path / "out", [("good", b"1"), (name, b"2")])
    assert list(tmp_path.iterdir()) == []


def test_a_clip_whose_id_is_a_path_is_refused(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    names = ["../../evil0_0_10", "bbbbbbbbbbb_0_10"]
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    folder = tmp_path / "theirs"
    trees.valor_labels(folder, ["bbbbbbbbbbb"], store.get("dataset/clips").array("weak"))
    made = trees.imported(store, "labels", "valor", folder)
    assert [failure["video_id"] for failure in made.failures] == [names[0]]  # a listed name is never a path
    ran = avvp("export", "labels/theirs", "--layout", "valor", "--out", tmp_path / "out", "--store", store.root)
    assert ran.code == 1
    assert trees.contents(tmp_path / "out").keys() == trees.contents(folder).keys()


def test_an_export_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def files() -> Iterator[tuple[str, bytes]]:
        yield "one/file", b"1"
        raise StoreError("the second cannot be read")

    with pytest.raises(StoreError, match="cannot be read"):
        write_folder(tmp_path / "out", files())
    with pytest.raises(StoreError, match="two files"):
        write_folder(tmp_path / "out", [("same", b"1"), ("same", b"2")])
    assert list(tmp_path.iterdir()) == []
