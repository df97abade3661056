"""Thresholds of UWAV's released code come in as they are and cut the logits of the generator they belong to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Store, StoreError
from avvp_pipe.store.verify import verify
from tests import trees
from tests.checkpoint_files import saved
from tests.released_shapes import generator_shapes, random_state

NAMES = trees.clip_names(6)
STEMS = [name[:11] for name in NAMES]
FILES = ("a_classwise_threhsolds.npy", "v_classwise_threhsolds.npy")
HEARD = np.array([-np.inf, 0.25, -1.5], np.float32)
SMALL = {"width": 8, "ffn": 12, "layers": 2, "audio": 6, "visual": 10}
SEEN = np.array([0.5, np.inf, 0.0], np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return trees.make_dataset(tmp_path, dict.fromkeys(NAMES, 10))


def write(folder: Path, heard: Any = HEARD, seen: Any = SEEN) -> Path:
    trees.save(folder / FILES[0], heard)
    trees.save(folder / FILES[1], seen)
    return folder


def import_them(store: Store, source: Path, told: trees.Told | None = None, **params: Any) -> Artifact:
    step = Step("import-thresholds", "theirs", {"source": str(source), **params}, {"dataset": "clips"})
    return run_step(store, step, progress=told or trees.Told()).artifact


@pytest.mark.parametrize("below", ["", "LLP_Dataset"])
def test_released_thresholds_come_in_unchanged(tmp_path: Path, store: Store, below: str) -> None:
    write(tmp_path / "run" / below)
    told = trees.Told()
    made = import_them(store, tmp_path / "run", told)
    np.testing.assert_array_equal(made.array("audio"), HEARD)
    np.testing.assert_array_equal(made.array("visual"), SEEN)
    assert np.isnan(made.array("audio_f1")).all()
    assert made.attrs["classes"] == list(trees.CLASSES)
    wanted = {"method": "uwav", "prompts": "uwav", "mode": "per-class", "weak_filter": "both"}
    assert {name: made.attrs[name] for name in wanted} == wanted
    assert "imported" in made.attrs["origin"]
    assert "audio: Cat has threshold -inf" in told.text
    assert verify(made).findings == ()


def test_the_right_spelling_a_single_threshold_and_double_precision_are_taken(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "run", np.float64(0.125), np.array([2.0]))
    (tmp_path / "run" / FILES[0]).rename(tmp_path / "run" / "a_classwise_thresholds.npy")
    made = import_them(store, tmp_path / "run")
    assert made.attrs["mode"] == "class-agnostic"
    assert made.attrs["file_names"]["audio"] == "a_classwise_thresholds.npy"
    assert made.array("audio").tolist() == [0.125] * 3
    assert made.array("visual").dtype == np.float32


def test_the_key_follows_the_bytes(tmp_path: Path, store: Store) -> None:
    first = import_them(store, write(tmp_path / "run"))
    assert import_them(store, write(tmp_path / "copy")).key == first.key
    assert import_them(store, write(tmp_path / "other", HEARD + 1)).key != first.key


@pytest.mark.parametrize(
    ("heard", "message"),
    [
        (np.zeros(4, np.float32), r"shape \(4,\); wanted floats, one for each of the dataset's 3 classes"),
        (np.zeros((3, 1), np.float32), r"shape \(3, 1\)"),
        (np.zeros(3, np.int64), "holds int64"),
        (np.array([0, np.nan, 0], np.float32), "NaN"),
        (np.array([0, 1e300, -np.inf]), r"1e\+300, which is no threshold"),
        (np.array([{}, 1, 2], object), "objects"),
        (np.float32(0.5), "one file holds a threshold a class, the other one for all"),
    ],
)
def test_thresholds_that_cannot_be_are_refused(tmp_path: Path, store: Store, heard: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        import_them(store, write(tmp_path / "run", heard))
    assert trees.visible(store) == ["dataset"]


def test_folders_without_or_with_too_many_of_the_files_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ParameterError, match="--source"):
        run_step(store, Step("import-thresholds", "t", {}, {"dataset": "clips"}), progress=trees.Told())
    with pytest.raises(StoreError, match="is not a folder"):
        import_them(store, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StoreError, match="found nothing"):
        import_them(store, tmp_path / "empty")
    run = write(tmp_path / "run")
    (run / FILES[1]).unlink()
    with pytest.raises(StoreError, match=r"v_classwise_threhsolds\.npy is missing"):
        import_them(store, run)
    write(run)
    write(run / "LLP_Dataset")
    with pytest.raises(StoreError, match=r"wanted .* once"):
        import_them(store, run)
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in FILES:
        (linked / name).symlink_to(run / name)
    with pytest.raises(StoreError, match="leads out of"):
        import_them(store, linked)


def test_a_released_checkpoint_and_its_thresholds_make_labels(
    tmp_path: Path, store: Store, avvp: Callable[..., Any]
) -> None:
    """The whole path of somebody who has the released files and features: four commands."""
    for folder, width in (("CLIP", SMALL["visual"]), ("CLAP", SMALL["audio"])):
        for row, stem in enumerate(STEMS):
            trees.save(tmp_path / f"feats_{folder}/segment_feats/{stem}.npy", trees.numbers(10, width, seed=row))
        texts = trees.numbers(len(trees.CLASSES), width, seed=99)
        texts /= np.linalg.norm(texts, axis=1, keepdims=True)
        trees.save(tmp_path / f"feats_{folder}/event_feats/all_event_feats.npy", texts)
    trees.imported(store, "features", "uwav", tmp_path, widths="any")
    state = random_state(generator_shapes(**SMALL))
    state |= {name: 20 * one for name, one in state.items() if "proj" in name}  # logits that differ from zero
    checkpoint, where = saved(tmp_path, state), ("--store", store.root, "--quiet")
    for line in (
        ("import-generator", "--source", checkpoint, "--heads", "2", "--name", "theirs"),
        ("import-thresholds", "--dataset", "clips", "--source", write(tmp_path / "run")),
    ):
        ran = avvp(*line, *where)
        assert ran.code == 0, ran.err
    inputs = ("--dataset", "clips", "--features", "theirs", "--generator", "theirs")
    ran = avvp("pseudolabel", "--method", "uwav", *inputs, "--thresholds", "clips-imported-uwav", *where)
    assert ran.code == 0, ran.err
    labels = store.get("labels/clips-uwav")
    np.testing.assert_array_equal(labels.array("audio_thresholds"), HEARD)
    weak, logits = labels.array("weak")[:, None], labels.array("audio_logits")
    assert logits.std() > 0.1
    np.testing.assert_array_equal(labels.array("audio_hard"), (logits > HEARD) & weak)
    assert not labels.array("visual_hard")[:, :, 1].any(), "a threshold of infinity is never passed"
    other = avvp("pseudolabel", "--method", "valor", *inputs, "--thresholds", "clips-imported-uwav", *where)
    assert other.code == 2
