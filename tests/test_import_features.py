"""Feature trees of others come in as they are and go out again byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.adaptive_pooling import adaptive_average
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, StoreError
from tests import trees

numbers, save, uwav_tree = trees.numbers, trees.save, trees.uwav_tree
Export = Callable[..., Any]


def slow_pooling(rows: NDArray[Any], seconds: int) -> NDArray[Any]:
    """Adaptive average pooling as PyTorch documents it, one number at a time."""
    pooled = np.zeros((seconds, rows.shape[1]), rows.dtype)
    for t in range(seconds):
        start, stop = int(np.floor(t * len(rows) / seconds)), int(np.ceil((t + 1) * len(rows) / seconds))
        for column in range(rows.shape[1]):
            total = 0.0
            for row in range(start, stop):
                total += float(rows[row, column])
            pooled[t, column] = total / (stop - start)
    return pooled


@pytest.fixture
def export(avvp: Callable[..., Any]) -> Export:
    def run(artifact: Artifact, store: Any, layout: str, out: Path, *more: str) -> Any:
        return avvp("export", artifact.reference, "--layout", layout, "--out", out, "--store", store.root, *more)

    return run


def llp_like(tmp_path: Path, *, count: int = 4, **options: Any) -> tuple[Any, Path]:
    """A store with `count` clips of ten seconds, and UWAV's tree for them."""
    names = trees.clip_names(count)
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    uwav_tree(tmp_path / "data" / "LLP", dict.fromkeys([name[:11] for name in names], 10), **options)
    return store, tmp_path / "data" / "LLP"


def slow_rows(artifact: Artifact, folder: Path, ending: str = ".npy") -> NDArray[Any]:
    """The files of all clips, loaded one by one and laid into (N, L, D), NaN where there is nothing."""
    arrays = [np.load(folder / f"{name[:11]}{ending}") for name in artifact.strings("video_ids")]
    laid = np.full((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), np.nan, arrays[0].dtype)
    for row, array in enumerate(arrays):
        for place in range(len(array)):
            laid[row, place] = array[place]
    return laid


def test_uwavs_llp_tree_comes_in_unchanged_and_goes_out_byte_for_byte(tmp_path: Path, export: Export) -> None:
    store, tree = llp_like(tmp_path, texts=3)
    made = trees.imported(store, "features", "uwav", tree).artifact
    np.testing.assert_array_equal(made.array("visual"), slow_rows(made, tree / "feats_CLIP/segment_feats"))
    np.testing.assert_array_equal(made.array("audio"), slow_rows(made, tree / "feats_CLAP/segment_feats"))
    np.testing.assert_array_equal(made.array("text_audio/uwav"), numbers(3, 512))
    assert made.attrs["origin"] == "imported, origin unknown"
    ran = export(made, store, "uwav", tmp_path / "out")
    assert ran.code == 0, ran.err
    assert trees.contents(tmp_path / "out") == trees.contents(tree)


def test_uwavs_ragged_unav_tree_is_pooled_to_seconds_and_goes_out_byte_for_byte(tmp_path: Path, export: Export) -> None:
    seconds = {"aaaaaaaaaaa": 12, "-bbbbbbbbbb": 5, "ccccccccccc": 7}
    rows = {"aaaaaaaaaaa": 12, "-bbbbbbbbbb": 13, "ccccccccccc": 3}
    store = trees.make_dataset(tmp_path, seconds)
    uwav_tree(tmp_path / "UnAV", rows)
    told = trees.Told()
    made = trees.imported(store, "features", "uwav", tmp_path, told).artifact
    assert made.array("visual").shape == (3, 12, 768)
    for row, (name, length) in enumerate(seconds.items()):
        file = np.load(tmp_path / "UnAV/feats_CLAP/segment_feats" / f"{name}.npy")
        np.testing.assert_allclose(made.array("audio")[row, :length], slow_pooling(file, length), rtol=1e-6, atol=1e-6)
        assert np.isnan(made.array("audio")[row, length:]).all()
    np.testing.assert_array_equal(made.array("audio")[0], made.array("native_audio")[0, :12])
    assert made.array("native_audio_lengths").tolist() == [12, 13, 3]
    assert "2 clips have another number of rows than of seconds" in told.text
    export(made, store, "uwav", tmp_path / "out")
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "UnAV")


VALOR_FILES = (("CLIP/features", ".npy", "visual", 10, 768), ("CLAP/features", ".npy", "audio_map", 64, 768))
VALOR_PLUSPLUS_FILES = (*VALOR_FILES, ("feats/r2plus1d_18", ".npy", "motion", 10, 512))
CLASSIC_FILES = (
    ("vggish", ".npy", "audio", 10, 128),
    ("res152", ".npy", "native_visual", 80, 2048),
    ("r2plus1d_18", ".npy", "motion", 10, 512),
)
UNAV_FILES = (
    (".", "_vggish.npy", "native_audio", 33, 128),
    (".", "_rgb.npy", "native_visual", 31, 1024),
    (".", "_flow.npy", "native_motion", 32, 1024),
)


@pytest.mark.parametrize(
    ("layout", "files"),
    [("valor", VALOR_FILES), ("valor++", VALOR_PLUSPLUS_FILES), ("classic", CLASSIC_FILES), ("unav", UNAV_FILES)],
)
def test_other_trees_come_in_unchanged_and_go_out_byte_for_byte(
    tmp_path: Path, export: Export, layout: str, files: tuple[tuple[str, str, str, int, int], ...]
) -> None:
    names = trees.clip_names(3)
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    for folder, ending, _, length, width in files:
        for row, name in enumerate(names):
            save(tmp_path / "tree" / folder / f"{name[:11]}{ending}", numbers(length, width, seed=row))
    made = trees.imported(store, "features", layout, tmp_path / "tree").artifact
    for folder, ending, array, _, _ in files:
        np.testing.assert_array_equal(made.array(array), slow_rows(made, tmp_path / "tree" / folder, ending))
    export(made, store, layout, tmp_path / "out")
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "tree")


def test_classic_frames_become_the_mean_of_each_second(tmp_path: Path) -> None:
    names = trees.clip_names(2)
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    for folder, _, _, length, width in CLASSIC_FILES:
        for row, name in enumerate(names):
            save(tmp_path / folder / f"{name[:11]}.npy", numbers(length, width, seed=row))
    made = trees.imported(store, "features", "classic", tmp_path).artifact
    means = made.array("native_visual").reshape(2, 10, 8, 2048).mean(axis=2)
    np.testing.assert_allclose(made.array("visual"), means, rtol=1e-5, atol=1e-6)


@given(rows=st.integers(1, 40), seconds=st.integers(1, 40), width=st.integers(1, 3))
@settings(deadline=None)
def test_pooling_equals_the_loop_and_torch(rows: int, seconds: int, width: int) -> None:
    import torch

    array = numbers(rows, width)
    pooled = adaptive_average(array, seconds)
    np.testing.assert_allclose(pooled, slow_pooling(array, seconds), rtol=1e-6, atol=1e-6)
    theirs = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(array).T[None], seconds)[0].T.numpy()
    np.testing.assert_allclose(pooled, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float64", ">f4"])
def test_the_dtype_of_the_files_is_kept(tmp_path: Path, export: Export, dtype: str) -> None:
    store, tree = llp_like(tmp_path, dtype=dtype)
    made = trees.imported(store, "features", "uwav", tree).artifact
    assert made.array("visual").dtype == np.dtype(dtype).newbyteorder("=")
    export(made, store, "uwav", tmp_path / "out")
    assert trees.contents(tmp_path / "out") == trees.contents(tree)


def test_files_in_fortrans_order_and_by_whole_ids_go_out_as_they_came(tmp_path: Path, export: Export) -> None:
    names = trees.clip_names(2)
    store = trees.make_dataset(tmp_path, dict.fromkeys(names, 10))
    for row, name in enumerate(names):
        save(tmp_path / "tree/CLIP/features" / f"{name}.npy", numbers(10, 768, seed=row))
        save(tmp_path / "tree/CLAP/features" / f"{name}.npy", numbers(768, 64, seed=row).T)
    made = trees.imported(store, "features", "valor", tmp_path / "tree").artifact
    np.testing.assert_array_equal(made.array("audio_map")[1], numbers(768, 64, seed=1).T)
    export(made, store, "valor", tmp_path / "out")
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "tree")


def test_files_in_both_orders_are_told_and_go_out_with_the_same_numbers(tmp_path: Path, export: Export) -> None:
    store, tree = llp_like(tmp_path)
    path = sorted((tree / "feats_CLIP").rglob("*.npy"))[0]
    save(path, np.asfortranarray(np.load(path)))
    told = trees.Told()
    made = trees.imported(store, "features", "uwav", tree, told).artifact
    assert "visual: some files are in Fortran's order" in told.text
    export(made, store, "uwav", tmp_path / "out")
    np.testing.assert_array_equal(np.load(tmp_path / "out" / path.relative_to(tree)), np.load(path))


def test_a_clip_without_a_file_fails_alone_and_is_left_out_of_the_export(tmp_path: Path, export: Export) -> None:
    store, tree = llp_like(tmp_path)
    lost = tree / "feats_CLAP" / "segment_feats" / f"{trees.clip_names(4)[2][:11]}.npy"
    lost.unlink()
    made = trees.imported(store, "features", "uwav", tree)
    assert [(one["video_id"], one["code"]) for one in made.failures] == [(trees.clip_names(4)[2], "missing-file")]
    assert "feats_CLAP" in made.failures[0]["message"]
    assert made.artifact.array("status").tolist() == [1, 1, 2, 1]
    assert np.isnan(made.artifact.array("visual")[2]).all()
    ran = export(made.artifact, store, "uwav", tmp_path / "out", "--json")
    assert (ran.code, ran.document["failed"]) == (1, [trees.clip_names(4)[2]])
    assert ran.document["files"] == 6
    kept = {name: data for name, data in trees.contents(tree).items() if trees.clip_names(4)[2][:11] not in name}
    assert trees.contents(tmp_path / "out") == kept


def test_files_of_no_clip_are_told(tmp_path: Path) -> None:
    store, tree = llp_like(tmp_path)
    save(tree / "feats_CLIP/segment_feats/stranger001.npy", numbers(10, 768))
    (tree / "feats_CLIP/segment_feats/notes.txt").write_text("hello")
    told = trees.Told()
    trees.imported(store, "features", "uwav", tree, told)
    assert "2 files belong to no clip" in told.text
    assert "stranger001.npy" in told.text


def test_the_same_files_elsewhere_are_the_same_artifact_and_changed_ones_are_another(tmp_path: Path) -> None:
    store, tree = llp_like(tmp_path)
    first = trees.imported(store, "features", "uwav", tree)
    again = trees.imported(store, "features", "uwav", tmp_path / "data")
    assert (again.state, again.artifact.key) == ("cached", first.artifact.key)
    path = next(tree.rglob("*.npy"))
    save(path, np.load(path) + 1)
    assert trees.imported(store, "features", "uwav", tree).artifact.key != first.artifact.key


def test_a_killed_import_goes_on_to_the_same_arrays(tmp_path: Path) -> None:
    store, tree = llp_like(tmp_path, count=300)
    whole = trees.imported(store, "features", "uwav", tree).artifact
    undisturbed = {name: whole.array(name) for name in ("visual", "audio", "status")}
    store.discard(whole)

    class Killed(BaseException):
        pass

    class Dying(Silent):
        def track(self, items: Any, *, total: int, label: str, done: int = 0) -> Any:
            for number, item in enumerate(items):
                if number:
                    raise Killed
                yield item

    with pytest.raises(Killed):
        trees.imported(store, "features", "uwav", tree, Dying())
    assert trees.visible(store) == ["dataset"]
    resumed = trees.imported(store, "features", "uwav", tree).artifact
    for name, array in undisturbed.items():
        np.testing.assert_array_equal(resumed.array(name), array)


def test_imported_features_with_texts_make_labels(tmp_path: Path) -> None:
    from avvp_pipe.pipeline.runner import Step, run_step

    store, tree = llp_like(tmp_path, texts=3)
    trees.imported(store, "features", "uwav", tree)
    step = Step("pseudolabel", "weak", {"method": "video-labels"}, {"dataset": "clips", "features": "theirs"})
    assert run_step(store, step, progress=trees.Told()).artifact.array("audio_hard").shape == (4, 10, 3)


def test_features_of_another_width_are_taken_and_given_only_on_request(tmp_path: Path, export: Export) -> None:
    store, tree = llp_like(tmp_path)
    for path in sorted((tree / "feats_CLIP").rglob("*.npy")):
        save(path, numbers(10, 512))
    with pytest.raises(StoreError, match=r"feats_CLIP.*\(10, 512\); wanted \(rows, 768\)"):
        trees.imported(store, "features", "uwav", tree)
    made = trees.imported(store, "features", "uwav", tree, widths="any").artifact
    refused = export(made, store, "uwav", tmp_path / "out")
    assert refused.code == 2
    assert "--any-width" in refused.err
    assert not (tmp_path / "out").exists()
    assert export(made, store, "uwav", tmp_path / "out", "--any-width").code == 0
    assert trees.contents(tmp_path / "out") == trees.contents(tree)
