"""Parsers on the other datasets, end to end: UnAV-100, whose clips differ in length, and AVE with its background."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.ave_accuracy import ave_accuracy, class_indices
from avvp_pipe.stages.datasets.ave import OFFICIAL
from avvp_pipe.stages.datasets.unav import CLASSES
from avvp_pipe.stages.rows import JOINT
from avvp_pipe.store import Artifact, Store
from avvp_pipe.store.verify import verify
from tests import reference_metrics as reference
from tests.conftest import build_small
from tests.trees import Told

SMALL: Mapping[str, Any] = {
    "width": 8, "heads": 1, "ffn": 8, "layers": 1, "epochs": 2, "warmup": 0, "train_batch": 4, "widths": "features",
    "device": "cpu",
}  # fmt: skip
SUBSETS = ("train",) * 6 + ("validation",) * 3 + ("test",) * 3
INPUTS = {"dataset": "dataset/mine", "features": "features/mine"}


def step(store: Store, stage: str, name: str, inputs: Mapping[str, str], **params: Any) -> Artifact:
    return run_step(store, Step(stage, name, params, dict(inputs)), progress=Told()).artifact


def put_features(store: Store, dataset: Artifact, widths: Mapping[str, int], name: str = "mine") -> dict[str, Any]:
    """What is on, seen through a drawn matrix; NaN beyond a clip's end."""
    rng, truth = np.random.default_rng(0), dataset.array("audio_visual")
    there = np.arange(truth.shape[1]) < dataset.array("lengths")[:, None]
    arrays: dict[str, Any] = {one: dataset.strings(one) for one in ("video_ids", "splits")}
    arrays |= {one: dataset.array(one) for one in ("weak", "lengths")} | {"status": np.ones(len(truth), np.uint8)}
    for stream, width in widths.items():
        values = truth @ rng.normal(size=(truth.shape[2], width)) + 0.1 * rng.normal(size=(*truth.shape[:2], width))
        arrays[stream] = np.where(there[:, :, None], values, np.nan).astype(np.float32)
    build_small(store, f"features/{name}", arrays=arrays, classes=list(dataset.attrs["classes"]))
    return arrays


def rows_of(dataset: Artifact, split: str) -> NDArray[np.intp]:
    return np.flatnonzero(np.array(dataset.strings("splits")) == split)


@pytest.fixture
def unav(tmp_path: Path) -> Store:
    """Twelve videos of two to nine seconds, two classes in some seconds."""
    database = {}
    for row, subset in enumerate(SUBSETS):
        seconds = 2.2 + 0.6 * row
        events = [([0.0, 1.4], "sailing"), ([0.5, seconds - 0.3], CLASSES[row % 3])]
        annotations = [
            {"segment": segment, "label": label, "label_id": CLASSES.index(label)} for segment, label in events
        ]
        database[f"abcdefghi{row:02d}"] = {"duration": seconds, "subset": subset, "annotations": annotations}
    path = tmp_path / "unav100_annotations.json"
    path.write_text(json.dumps({"version": "unav100", "database": database}))
    store = Store(tmp_path / "store")
    step(store, "dataset", "mine", {}, reader="unav", source=str(path))
    return store


@pytest.mark.parametrize("parser", ["han", "uwav-clip-clap", "coleaf", "ear"])
def test_a_parser_learns_unav_from_weak_labels_and_is_scored_by_av_f(unav: Store, parser: str) -> None:
    dataset = unav.get("dataset/mine")
    lengths = dataset.array("lengths")
    assert (set(dataset.array("dense")), lengths.min(), lengths.max()) == ({JOINT}, 3, 9)
    put_features(unav, dataset, {"audio": 6, "visual": 10})
    step_only = {"epochs", "train_batch", "widths", "device", "width"}
    params = {key: value for key, value in SMALL.items() if key in step_only or parser in ("uwav-clip-clap", "ear")}
    found = step(unav, "train-parser", "p", INPUTS, parser=parser, targets="weak", **params)
    assert found.attrs["selected_by"] == "val_joint_AV"
    scores = step(unav, "evaluate", "s", {"predictions": "parser/p", "dataset": "dataset/mine"})
    both, truth = found.array("audio_hard") & found.array("visual_hard"), dataset.array("audio_visual")
    beyond = np.arange(9) >= lengths[:, None]
    assert not found.array("audio_probs")[beyond].any()
    for one in scores.attrs["scores"]:
        rows = rows_of(dataset, one["split"])
        wanted = reference.official_scores(both[rows], both[rows], truth[rows], truth[rows], lengths[rows].tolist())
        assert one["dense"] == "joint"
        assert one["of"] == {level: {"AV": pytest.approx(wanted[level]["AV"])} for level in ("segment", "event")}
        assert "accuracy" not in one, "seconds of UnAV have several classes"
    assert [one["split"] for one in scores.attrs["scores"]] == ["train", "val", "test"]
    assert not scores.array("modality_confusion").any(), "nobody knows what is heard alone"
    assert verify(scores).findings == ()


def test_what_a_short_clip_is_called_does_not_depend_on_the_longest(unav: Store) -> None:
    """The same clips, cut into a dataset of their own."""
    dataset = unav.get("dataset/mine")
    arrays = put_features(unav, dataset, {"audio": 6, "visual": 10})
    found = step(unav, "train-parser", "p", INPUTS, targets="weak", **SMALL)
    short = {name: array[:2] for name, array in arrays.items()}
    short |= {name: short[name][:, :4] for name in ("audio", "visual")}
    build_small(unav, "features/short", arrays=short, classes=list(CLASSES))
    inputs = {"parser": "parser/p", "features": "features/short"}
    alone = step(unav, "parse", "short", inputs, device="cpu")
    assert alone.array("audio_probs").shape == (2, 4, 100)
    for name in ("audio_probs", "visual_probs"):
        np.testing.assert_allclose(alone.array(name), found.array(name)[:2, :4], atol=1e-6)
    np.testing.assert_allclose(alone.array("video_probs"), found.array("video_probs")[:2], atol=1e-6)


@pytest.fixture
def ave(tmp_path: Path) -> Store:
    """Sixteen videos of three categories, their events of two to nine seconds, with labels of seconds."""
    spans = [(row % 4, row % 4 + 2 + row % 5) for row in range(16)]
    lines = [f"{OFFICIAL[row % 3]}&abcdefghi{row:02d}&good&{start}&{end}" for row, (start, end) in enumerate(spans)]
    (tmp_path / "Annotations.txt").write_text("".join(line + "\n" for line in lines))
    for split, rows in (("train", range(10)), ("val", range(10, 13)), ("test", range(13, 16))):
        with h5py.File(tmp_path / f"{split}_order.h5", "w") as file:
            file.create_dataset("order", data=np.array(rows))
    store = Store(tmp_path / "store")
    dataset = step(store, "dataset", "mine", {}, reader="ave", source=str(tmp_path))
    streams = put_features(store, dataset, {"audio": 6, "visual": 10, "motion": 4})
    rng, truth = np.random.default_rng(1), dataset.array("audio_visual")
    labels = {name: array for name, array in streams.items() if name not in ("audio", "visual", "motion")}
    for modality in ("audio", "visual"):
        soft = np.where(truth, 0.6, 0.1) + 0.3 * rng.random(truth.shape)
        labels[f"{modality}_soft"] = (soft * dataset.array("weak")[:, None]).astype(np.float32)
        labels[f"{modality}_hard"] = labels[f"{modality}_soft"] > 0.5
    build_small(store, "labels/mine", arrays=labels, classes=list(OFFICIAL), method="uwav")
    return store


@pytest.mark.parametrize(
    ("params", "terms"),
    [
        ({"parser": "valor", "targets": "weak", "video": "mean", "switches": "head=ffn"}, {"video"}),
        ({"parser": "valor", "targets": "hard", "switches": "head=ffn"}, {"segment_audio", "segment_visual"}),
        (
            {"parser": "uwav", "targets": "soft", "mixup": "hard", "reweight": "code"},
            {"segment_audio", "segment_visual", "mixup_audio", "mixup_visual"},
        ),
    ],
)
def test_ave_is_trained_with_background_and_hard_mixup_and_scored_by_accuracy(
    ave: Store, avvp: Callable[..., Any], params: dict[str, Any], terms: set[str]
) -> None:
    """VALOR's baseline and VALOR, heads and all; UWAV: soft labels of seconds, hard ones in mixup."""
    dataset = ave.get("dataset/mine")
    inputs = {**INPUTS, "labels": "labels/mine"}
    objective = {"background": "column", "video": "none", "select": "val_accuracy", **SMALL, **params}
    objective |= {"epochs": 12, "learning_rate": 0.01, "learning_rate_min": 0.0, "train_batch": 5}
    found = step(ave, "train-parser", "p", inputs, **objective)
    names = {name.removeprefix("history/") for name in found.array_names() if name.startswith("history/")}
    assert {name for name in names if not name.startswith("val_")} - {"epoch", "rate", "loss"} == terms
    assert found.attrs["network"]["classes"] == 29
    assert found.array("history/loss")[-1] < found.array("history/loss")[0]
    scores = step(ave, "evaluate", "s", {"predictions": "parser/p", "dataset": "dataset/mine"})
    assert scores.attrs["gate"] is None, "the most probable class is on, whatever its probability"
    truth = class_indices(dataset.array("audio_visual"))
    called = class_indices(found.array("audio_hard"))
    assert np.array_equal(found.array("audio_hard"), found.array("visual_hard"))
    for one in scores.attrs["scores"]:
        rows = rows_of(dataset, one["split"])
        assert one["accuracy"]["of"] == pytest.approx(ave_accuracy(called[rows], truth[rows]))
        background = 100 * float((truth[rows] == 28).mean())
        assert one["accuracy"]["nothing"] == pytest.approx(background)
        assert one["accuracy"]["video_labels"] == pytest.approx(100 - background)
    best = found.array("history/val_accuracy").max()
    assert scores.attrs["scores"][1]["accuracy"]["of"] == pytest.approx(best)
    shown = avvp("show", "scores/s", "--store", ave.root).out
    assert "test, accuracy of seconds, percent: these " in shown
