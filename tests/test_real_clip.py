"""One real clip of LLP goes the way of all clips: annotations, frames and sound, embeddings."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Store

NAME = "BjCEufrlXm4_20_30"


@pytest.mark.real_data
def test_the_real_clip_passes_through_decode_and_extract_with_the_embedded_teachers(
    real_data: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(real_data / "llp" / "BjCEufrlXm4.mp4", videos)
    (tmp_path / "clips.csv").write_text(
        f"id,path,split,labels\n{NAME},videos/BjCEufrlXm4.mp4,train,Speech;Dog\n", encoding="utf-8"
    )
    common = ("--name", "real", "--store", tmp_path / "store", "--quiet")
    assert avvp("dataset", "--source", tmp_path / "clips.csv", *common).code == 0
    assert avvp("decode", "--dataset", "real", "--workers", "1", *common).code == 0
    teachers = ("--visual-teacher", "tiny-clip", "--audio-teacher", "tiny-clap")
    assert avvp("extract", "--dataset", "real", "--media", "real", *teachers, *common).code == 0
    store = Store(tmp_path / "store")
    media, features = store.get("media/real"), store.get("features/real")
    assert media.array("frame_indices")[0].tolist() == [0, 29, 63, 96, 130, 164, 197, 231, 265, 298]
    assert media.array("audio").shape == (1, 480000)
    assert media.array("padded_samples").tolist() == [0]
    for name in ("visual", "audio"):
        embeddings = features.array(name)
        assert embeddings.shape == (1, 10, 96)
        assert np.allclose(np.linalg.norm(embeddings, axis=-1), 1, atol=1e-5)


@pytest.mark.real_data
def test_the_llp_annotations_become_a_dataset_with_their_report(
    real_data: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = avvp(
        "dataset", "--reader", "llp", "--source", real_data / "llp", "--name", "llp", "--store", tmp_path, "--json"
    )
    assert ran.code == 0
    dataset = Store(tmp_path).get("dataset/llp")
    assert dataset.lazy("audio").shape == (11849, 10, 25)
    counts = {finding["code"]: finding["count"] for finding in dataset.attrs["report"]}
    assert (counts["val-segment-events"], counts["val-segment-events-one-modality"]) == (9126, 4048)
    assert len(dataset.provenance["sources"]) == 6
