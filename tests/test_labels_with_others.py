"""Labels in other people's hands: joined with features for torch, named for xarray, stored in half precision."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from avvp_pipe.store import Identity, Reference, Store, StoreError, load_labels
from avvp_pipe.store.torch_dataset import LabelledFeatures
from tests.made import made, made_labels


def features_for(store: Store, ids: list[str], *, failed: int | None = None, segments: int = 10) -> Any:
    """Features whose every value is the clip's place in `ids`, NaN where it failed."""

    def fill(builder: Any) -> None:
        values = np.repeat(np.arange(len(ids), dtype=np.float16)[:, None], segments * 4, 1).reshape(-1, segments, 4)
        status = np.ones(len(ids), np.uint8)
        if failed is not None:
            values[failed], status[failed] = np.nan, 7
        builder.put("video_ids", ids)
        builder.put("splits", ["train"] * len(ids))
        builder.put("weak", np.zeros((len(ids), 3), bool))
        builder.put("lengths", np.full(len(ids), segments, np.int32))
        builder.put("status", status)
        builder.put("visual", values)
        builder.put("audio", values + 100)
        builder.describe(classes=["a", "b", "c"])

    identity = Identity("extract", 1, {"ids": ids, "failed": failed, "segments": segments}, {})
    return made(store, Reference("features", "mine"), identity, fill)


@pytest.mark.parametrize("in_memory", [True, False])
def test_labels_and_features_are_joined_by_clip_whatever_their_order(tmp_path: Any, in_memory: bool) -> None:
    store = Store(tmp_path)
    labels = load_labels(made_labels(store).path)
    backwards = list(reversed(labels.video_ids))
    joined = LabelledFeatures(labels, features_for(store, backwards), in_memory=in_memory)
    assert len(joined) == 20
    for row in (0, 4, 19):
        item = joined[row]
        assert item["video_id"] == labels.video_ids[row]
        length = 7 if row % 5 == 4 else 10
        assert item["length"] == length
        assert item["visual"][:length].unique().tolist() == [19 - row]
        assert item["audio"][:length].unique().tolist() == [119 - row]
        assert not item["visual"][length:].any()
        np.testing.assert_array_equal(item["audio_soft"].numpy(), labels.audio_soft[row])
        np.testing.assert_array_equal(item["visual_hard"].numpy(), labels.visual_hard[row])


def test_torch_makes_batches_of_them(tmp_path: Any) -> None:
    store = Store(tmp_path)
    labels = load_labels(made_labels(store).path)
    joined = LabelledFeatures(labels, features_for(store, list(labels.video_ids)), split="train")
    batch = next(iter(DataLoader(joined, batch_size=4)))
    assert batch["visual"].shape == (4, 10, 4)
    assert batch["visual"].dtype == torch.float32
    assert batch["audio_hard"].shape == (4, 10, 3)
    assert batch["audio_hard"].dtype == torch.bool
    assert set(batch["video_id"]) <= {
        one for one, split in zip(labels.video_ids, labels.splits, strict=True) if split == "train"
    }


def test_a_clip_that_failed_is_left_out_by_name(tmp_path: Any) -> None:
    store = Store(tmp_path)
    labels = load_labels(made_labels(store).path)
    joined = LabelledFeatures(labels, features_for(store, list(labels.video_ids), failed=3))
    assert len(joined) == 19
    assert joined.left_out == (labels.video_ids[3],)
    assert all(bool(joined[row]["visual"].isfinite().all()) for row in range(19))


def test_what_cannot_be_joined_is_said(tmp_path: Any) -> None:
    store = Store(tmp_path)
    labels = load_labels(made_labels(store).path)
    ids = list(labels.video_ids)
    with pytest.raises(StoreError, match=f"lacks 2 of the labelled clips, {ids[0]} first"):
        LabelledFeatures(labels, features_for(store, ids[2:]))
    with pytest.raises(StoreError, match="has 12 segments a clip in 'visual', the labels have 10"):
        LabelledFeatures(labels, features_for(store, ids, segments=12))
    with pytest.raises(StoreError, match="where features are wanted"):
        LabelledFeatures(labels, labels.artifact)
    with pytest.raises(StoreError, match="no labelled clips in split 'nobody'; there are train, val"):
        LabelledFeatures(labels, features_for(store, ids), split="nobody")


def test_xarray_finds_a_clip_and_a_class_by_name(tmp_path: Any) -> None:
    labels = load_labels(made_labels(Store(tmp_path)).path)
    data = labels.to_xarray()
    assert dict(data.sizes) == {"clip": 20, "segment": 10, "class": 3}
    one = data.set_index(clip="video_id").sel({"clip": labels.video_ids[3], "class": "Drum"})
    np.testing.assert_array_equal(one.audio_hard.values, labels.audio_hard[3, :, 1])
    np.testing.assert_array_equal(data.audio_thresholds.sel({"class": "Bell"}), labels.audio_thresholds[0])
    assert data.attrs["labels"] == str(labels.artifact.reference)


def test_without_xarray_it_says_how_to_get_it(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = load_labels(made_labels(Store(tmp_path)).path)
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r'pip install "avvp-pipe\[xarray\]"'):
        labels.to_xarray()


def test_features_are_stored_in_half_precision_on_request_and_used_as_others_are(demo_copy: Any, avvp: Any) -> None:
    store = ("--store", demo_copy.store)
    ran = avvp(
        "extract",
        "--dataset",
        "target",
        "--media",
        "target",
        "--stored-as",
        "float16",
        "--name",
        "half",
        "--visual-teacher",
        "tiny-clip",
        "--audio-teacher",
        "tiny-clap",
        *store,
    )
    assert ran.code == 0, ran.err
    half, whole = (Store(demo_copy.store).get(f"features/{name}") for name in ("half", "target"))
    assert half.facts("visual").dtype == half.facts("audio").dtype == "float16"
    np.testing.assert_array_equal(half.array("visual"), whole.array("visual").astype(np.float16))
    inputs = ("--dataset", "target", "--features", "half")
    assert avvp("calibrate", "--method", "valor", *inputs, "--name", "half", *store).code == 0
    ran = avvp("pseudolabel", "--method", "valor", *inputs, "--thresholds", "half", "--name", "half", *store)
    assert ran.code == 0, ran.err
    ours, theirs = (load_labels(name, store=demo_copy.store) for name in ("half", "valor"))
    np.testing.assert_allclose(ours.audio_logits, theirs.audio_logits, atol=0.02)
    small = ("--width", "32", "--heads", "4", "--ffn", "32", "--layers", "1", "--epochs", "1")
    ran = avvp("train-parser", *inputs, "--labels", "half", *small, "--name", "half", *store)
    assert ran.code == 0, ran.err
