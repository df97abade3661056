"""What training a parser refuses, stops at or does without, and that it says so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.seeds import seeds_of
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Store, StoreError
from tests.parser_world import SPLITS, put_world, train


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With features of teachers."""
    opened = Store(tmp_path / "store")
    put_world(opened)
    return opened


@pytest.mark.parametrize(
    ("widths", "parser", "message"),
    [
        ({"audio": 6, "visual": 10}, "uwav", "reads audio, visual, motion, but features/mine@.* has no motion"),
        (
            {"audio": 6, "visual": 10, "motion": 512},
            "valor",
            r"reads audio of 128 numbers \(it has 6\), visual of 2048",
        ),
        ({"audio": 6, "visual": 10, "motion": 512}, "valor++", "has no audio_map"),
        ({"visual": 10}, "uwav-clip-clap", "has no audio"),
    ],
)
def test_features_of_other_streams_or_widths_are_refused(
    tmp_path: Path, widths: dict[str, int], parser: str, message: str
) -> None:
    put_world(Store(tmp_path), widths=widths)
    with pytest.raises(StoreError, match=message):
        train(Store(tmp_path), parser=parser)


def test_labels_of_other_classes_or_clips_are_refused(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    for changed, message in (
        ({"classes": ("Bell", "Drum", "Harp")}, "other classes than dataset/mine@.*: Harp, where Bell, Drum, Flute"),
        ({"classes": ("Drum", "Bell", "Flute")}, "the same 3 in another order"),
        ({"splits": SPLITS[1:]}, r"lacks 1 of the 20 clips of dataset/mine@\w+, such as clip0000019"),
    ):
        put_world(other, **changed)
        stored = other.get("labels/mine")
        labels = {name: stored.array(name) for name in stored.array_names() if name not in ("video_ids", "splits")}
        texts = {name: stored.strings(name) for name in ("video_ids", "splits")}
        with pytest.raises(StoreError, match=message):
            train_with(store, {**labels, **texts}, stored.attrs["classes"])


def train_with(store: Store, arrays: dict[str, Any], classes: list[str]) -> None:
    """Train on labels of these arrays."""
    from avvp_pipe.pipeline.runner import Step, run_step
    from avvp_pipe.stages.stage import Silent
    from tests.conftest import build_small

    name = f"strange{len(list(store.artifacts()))}"
    build_small(store, f"labels/{name}", arrays=arrays, classes=classes, method="x")
    inputs = {"dataset": "mine", "features": "mine", "labels": name}
    run_step(store, Step("train-parser", "p", {"epochs": 1, "device": "cpu"}, inputs), progress=Silent())


def test_clips_that_failed_are_not_trained_on_and_predict_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_world(store, failed=(1, 14))
    found, notes = train(store)
    assert "1 of 12 training clips failed before and are not trained on" in notes
    for name in ("audio_hard", "visual_hard", "audio_probs", "video_probs"):
        assert not found.array(name)[[1, 14]].any()
        assert np.isfinite(found.array(name)).all()
    lengths = found.array("lengths")
    beyond = np.arange(4) >= lengths[:, None]
    assert beyond.any()
    assert not found.array("audio_probs")[beyond].any()


def test_holes_in_clips_that_are_marked_as_processed_stop_before_anything_is_learnt(tmp_path: Path) -> None:
    def hole(features: dict[str, Any]) -> None:
        features["audio"][0, 0] = np.nan

    put_world(Store(tmp_path), change=hole)
    with pytest.raises(StoreError, match=r"no features of some seconds of 1 clips .* such as clip0000000"):
        train(Store(tmp_path), train_batch=12)


def test_a_loss_that_is_not_finite_says_where_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def huge(features: dict[str, Any]) -> None:
        features["audio"][...] = np.where(np.isnan(features["audio"]), np.nan, 1e25)

    put_world(store, change=huge)
    with pytest.raises(ValueError, match=r"training diverged in epoch 1, batch 1 of 3: .*video = nan"):
        train(store)
    put_world(Store(tmp_path / "fine"))
    with pytest.raises(ValueError, match=r"diverged in epoch [2-9].* The state after epoch \d+ is kept in ") as raised:
        train(Store(tmp_path / "fine"), learning_rate=1e18, clip_norm=0, train_batch=12, epochs=9)
    kept = Path(str(raised.value).rpartition(" is kept in ")[2])
    assert kept.is_file()


def test_without_validation_clips_the_last_epoch_is_kept_and_that_is_told(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_world(store, splits=("train",) * 17 + ("test",) * 3)
    found, notes = train(store, patience=1, epochs=3)
    assert any("no validation clip has its seconds labelled, so that val_Type is not known" in note for note in notes)
    assert found.attrs["best_epoch"] == found.attrs["epochs"] == 3
    assert found.attrs["selected_by"] is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "weak", "mixup": "soft"}, "--mixup soft was given, but weak labels supervise no second"),
        ({"targets": "weak", "reweight": "code"}, "--reweight code was given, but no segment is re-weighted"),
        ({"reweight": "none", "balance": 0.7}, "--balance 0.7 was given, but nothing is re-weighted"),
        ({"step_every": 3}, "--step-every 3 was given, but the schedule has no steps"),
        ({"visual_smoothing": 0.5}, "--visual-smoothing 0.5 was given, but the video term is not guided"),
        (
            {"parser": "coleaf", "mixup": "soft"},
            "--mixup soft was given, but parser coleaf has an objective of its own",
        ),
        ({"parser": "coleaf", "precision": "bf16"}, "coleaf is trained in fp32 only"),
        ({"parser": "coleaf", "order": "symmetric"}, "--order symmetric was given, but parser coleaf has none"),
        ({"switches": "stacking"}, "wanted name=value between commas, got 'stacking'"),
        ({"switches": "stacks=2"}, "no switch 'stacks'; it has classes, width"),
        ({"switches": "stacking=upside"}, "--switches stacking"),
        ({"select": "val_F"}, "--select val_F: there is no such score; there are val_A"),
        ({"learning_rate": 1e-7}, "is above the peak"),
    ],
)
def test_parameters_of_no_use_are_refused(store: Store, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        train(store, warmup=None, **changes)


def test_labels_of_seconds_are_asked_for_where_they_are_wanted(store: Store) -> None:
    with pytest.raises(ParameterError, match="targets = 'soft' needs labels of every second"):
        train(store, labels=False)


@pytest.mark.parametrize("text", ["", "1,", "1,1", "a", "-1"])
def test_seeds_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ParameterError, match="wanted different whole numbers"):
        seeds_of(text)
