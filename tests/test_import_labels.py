"""Pseudo-labels of others come in as they are, with soft labels made as here, and go out again byte for byte."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.store import load_labels
from tests import trees

NAMES = trees.clip_names(6)
STEMS = [name[:11] for name in NAMES]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    return trees.make_dataset(tmp_path, dict.fromkeys(NAMES, 10))


@pytest.fixture
def weak(store: Any) -> Any:
    return store.get("dataset/clips").array("weak")


def files_of(folder: Path) -> Any:
    return np.stack([np.load(folder / f"{stem}.npy") for stem in STEMS])


def test_uwavs_labels_come_in_unchanged_and_go_out_byte_for_byte(
    tmp_path: Path, store: Any, weak: Any, avvp: Callable[..., Any]
) -> None:
    run = tmp_path / "run" / "LLP_Dataset"
    trees.uwav_labels(run, STEMS, weak)
    made = trees.imported(store, "labels", "uwav", tmp_path / "run").artifact
    for letter, modality in (("a", "audio"), ("v", "visual")):
        np.testing.assert_array_equal(made.array(f"{modality}_logits"), files_of(run / f"{letter}_segmentwise_logits"))
        hard = files_of(run / f"{letter}_segmentwise_pseudo_labels")
        np.testing.assert_array_equal(made.array(f"{modality}_hard"), hard == 1)
        thresholds = np.load(run / f"{letter}_classwise_threhsolds.npy")
        np.testing.assert_array_equal(made.array(f"{modality}_thresholds"), thresholds)
    assert made.attrs["not_from_logits"] == {"audio": 0, "visual": 0}
    ran = avvp("export", "labels/theirs", "--layout", "uwav", "--out", tmp_path / "out", "--store", store.root)
    assert ran.code == 0, ran.err
    assert trees.contents(tmp_path / "out") == trees.contents(run)


def test_soft_labels_of_uwavs_logits_follow_the_released_rule(tmp_path: Path, store: Any, weak: Any) -> None:
    trees.uwav_labels(tmp_path / "run", STEMS, weak)
    validation = tmp_path / f"run/v_segmentwise_logits/{STEMS[1]}.npy"
    lowest = np.load(validation)
    lowest[0, 0] = -50  # the lowest of all, but not of a training clip
    trees.save(validation, lowest)
    made = trees.imported(store, "labels", "uwav", tmp_path / "run").artifact
    logits, thresholds = made.array("visual_logits"), made.array("visual_thresholds").copy()
    training = [row for row, split in enumerate(made.strings("splits")) if split == "train"]
    thresholds[0] = min(float(logits[row, t, 0]) for row in training for t in range(10)) - 1
    for row in range(6):
        for column in range(3):
            wanted = 1 / (1 + np.exp(-(logits[row, :, column] - thresholds[column]) / 2)) * weak[row, column]
            np.testing.assert_allclose(made.array("visual_soft")[row, :, column], wanted, atol=1e-6)
    assert made.attrs["temperature"] == 2.0
    assert "computed here" in made.attrs["soft"]


def test_labels_made_here_come_back_from_an_export_as_they_were(
    demo_copy: Any, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    where = ("--store", demo_copy.store)
    avvp("export", "labels/uwav", "--layout", "uwav", "--out", tmp_path / "run", *where)
    back = avvp(
        "import-labels", "--dataset", "target", "--source", tmp_path / "run", "--name", "back", "--json", *where
    )
    assert back.code == avvp("show", "labels/uwav", *where).code == 0, back.err
    own, again = (load_labels(name, store=demo_copy.store) for name in ("uwav", "back"))
    for array in ("hard", "soft", "logits", "thresholds"):
        for modality in ("audio", "visual"):
            name = f"{modality}_{array}"
            np.testing.assert_array_equal(own.artifact.array(name), again.artifact.array(name), err_msg=name)
    assert again.artifact.attrs["not_from_logits"] == {"audio": 0, "visual": 0}


def test_valors_labels_come_in_unchanged_and_go_out_byte_for_byte(
    tmp_path: Path, store: Any, weak: Any, avvp: Callable[..., Any]
) -> None:
    trees.valor_labels(tmp_path / "data", STEMS, weak)
    made = trees.imported(store, "labels", "valor", tmp_path).artifact
    heard = files_of(tmp_path / "data/CLAP/segment_pseudo_labels")
    np.testing.assert_array_equal(made.array("audio_hard"), heard == 1)
    assert made.array("audio_hard").dtype == bool
    np.testing.assert_array_equal(made.array("visual_soft"), made.array("visual_hard").astype(np.float32))
    avvp("export", "labels/theirs", "--layout", "valor", "--out", tmp_path / "out", "--store", store.root)
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "data")
    refused = avvp("export", "labels/theirs", "--layout", "uwav", "--out", tmp_path / "no", "--store", store.root)
    assert refused.code == 2
    assert "no array 'audio_logits'" in refused.err


def test_the_right_spelling_of_thresholds_is_taken_and_given_back(
    tmp_path: Path, store: Any, weak: Any, avvp: Callable[..., Any]
) -> None:
    trees.uwav_labels(tmp_path / "run", STEMS, weak)
    (tmp_path / "run/a_classwise_threhsolds.npy").rename(tmp_path / "run/a_classwise_thresholds.npy")
    made = trees.imported(store, "labels", "uwav", tmp_path / "run").artifact
    assert made.attrs["file_names"]["audio_thresholds"] == "a_classwise_thresholds.npy"
    avvp("export", "labels/theirs", "--layout", "uwav", "--out", tmp_path / "out", "--store", store.root)
    assert trees.contents(tmp_path / "out") == trees.contents(tmp_path / "run")


def test_labels_outside_the_weak_label_or_the_logits_are_counted_and_kept(
    tmp_path: Path, store: Any, weak: Any
) -> None:
    trees.uwav_labels(tmp_path / "run", STEMS, weak)
    path = tmp_path / "run/a_segmentwise_pseudo_labels" / f"{STEMS[0]}.npy"
    hard = np.load(path)
    outside = int(np.flatnonzero(~weak[0])[0])
    hard[4:7, outside] = 1
    trees.save(path, hard)
    told = trees.Told()
    made = trees.imported(store, "labels", "uwav", tmp_path / "run", told).artifact
    assert made.array("audio_hard")[0, 4:7, outside].all()
    assert made.attrs["outside_weak"] == {"audio": 3, "visual": 0}
    assert made.attrs["not_from_logits"] == {"audio": 3, "visual": 0}
    assert "audio: 3 hard labels lie outside" in told.text


def test_a_clip_without_labels_fails_alone(tmp_path: Path, store: Any, weak: Any) -> None:
    trees.uwav_labels(tmp_path / "run", STEMS, weak)
    (tmp_path / "run/v_segmentwise_logits" / f"{STEMS[3]}.npy").unlink()
    made = trees.imported(store, "labels", "uwav", tmp_path / "run")
    assert [(one["video_id"], one["code"]) for one in made.failures] == [(NAMES[3], "missing-file")]
    labels = load_labels("labels/theirs", store=store.root)
    assert labels.status.tolist() == [1, 1, 1, 2, 1, 1]
    assert not labels.audio_hard[3].any()
    assert np.isnan(labels.audio_logits[3]).all()
    assert not labels.audio_soft[3].any()


@pytest.mark.parametrize("layout", ["uwav", "valor"])
def test_imported_labels_are_read_scored_and_trained_on_like_ones_made_here(
    tmp_path: Path, store: Any, weak: Any, layout: str
) -> None:
    write = trees.uwav_labels if layout == "uwav" else trees.valor_labels
    write(tmp_path / "theirs", STEMS, weak)
    trees.imported(store, "labels", layout, tmp_path / "theirs")
    labels = load_labels("labels/theirs", store=store.root)
    assert labels[STEMS[1]].audio_soft.shape == (10, 3)
    scored = Step("evaluate", "s", {}, {"predictions": "labels/theirs", "dataset": "clips"})
    scores = run_step(store, scored, progress=trees.Told())
    assert scores.artifact.attrs["method"] == layout
    for folder, width in (("CLIP", 768), ("CLAP", 512)):
        for row, stem in enumerate(STEMS):
            trees.save(tmp_path / f"feats_{folder}/segment_feats/{stem}.npy", trees.numbers(10, width, seed=row))
    trees.imported(store, "features", "uwav", tmp_path)
    tiny = {"width": 8, "heads": 1, "ffn": 8, "layers": 1, "epochs": 1, "warmup": 0, "device": "cpu"}
    inputs = {"dataset": "clips", "features": "features/theirs", "labels": "labels/theirs"}
    parser = run_step(store, Step("train-parser", "p", tiny, inputs), progress=trees.Told()).artifact
    assert parser.array("audio_hard").shape == (6, 10, 3)
