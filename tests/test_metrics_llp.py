"""Scores of the real LLP annotations equal those an independent evaluator made of the same files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.datasets import Dataset, read_llp
from avvp_pipe.stages.metrics import LEVELS, METRICS, avvp_scores

Labels = NDArray[np.bool_]


@pytest.fixture(scope="module")
def llp(real_data: Path) -> dict[str, dict[str, Labels]]:
    """Weak, heard and seen labels of LLP's validation and test clips."""
    dataset = read_llp(real_data / "llp")
    return {split: _split(dataset, split) for split in ("val", "test")}


@pytest.fixture(scope="module")
def published(real_data: Path) -> Any:
    """What an independent evaluator made of the same annotation files (audio file of April 2024)."""
    return json.loads((real_data / "llp" / "llp_video_label_baseline.json").read_text())["2024"]


def _split(dataset: Dataset, split: str) -> dict[str, Labels]:
    rows = np.flatnonzero(np.array(dataset.splits) == split)
    weak = dataset.weak[rows][:, None].repeat(10, axis=1)
    return {"weak": weak, "audio": dataset.audio[rows], "visual": dataset.visual[rows]}


def _predictions(labels: dict[str, Labels]) -> dict[str, tuple[Labels, Labels]]:
    nothing = np.zeros_like(labels["weak"])
    return {
        "video_labels": (labels["weak"], labels["weak"]),
        "oracle_masked_by_weak_labels": (
            labels["audio"] & labels["weak"],
            labels["visual"] & labels["weak"],
        ),
        "predict_nothing": (nothing, nothing),
    }


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("row", ["video_labels", "oracle_masked_by_weak_labels", "predict_nothing"])
def test_baselines_on_the_real_llp_agree_to_four_decimals(
    llp: dict[str, dict[str, Labels]], published: Any, split: str, row: str
) -> None:
    labels = llp[split]
    scores = avvp_scores(*_predictions(labels)[row], labels["audio"], labels["visual"])
    official, coleaf = published[split][row]["official"], published[split][row]["coleaf_new_metrics"]
    names = {"Evento": "EventAVo", "Typeo": "TypeAVo"}
    for level, prefix in zip(LEVELS, ("Seg", "Evt"), strict=True):
        for metric, score in scores[level].items():
            known = official if metric in METRICS[:5] else coleaf
            assert round(score, 4) == known[f"{prefix}-{names.get(metric, metric)}"], (level, metric)
    ten = [scores[level][metric] for level in LEVELS for metric in METRICS[:5]]
    assert round(sum(ten) / 10, 4) == official["Avg10"]


@pytest.mark.parametrize("split", ["val", "test"])
def test_pooled_scores_of_the_real_video_labels_agree(
    llp: dict[str, dict[str, Labels]], published: Any, split: str
) -> None:
    labels, known = llp[split], published[split]["video_labels"]["pooled"]
    arrays = (labels["weak"], labels["weak"], labels["audio"], labels["visual"])
    micro, macro = avvp_scores(*arrays, pooling="micro"), avvp_scores(*arrays, pooling="class-macro")
    for level in LEVELS:
        for metric in ("A", "V", "AV"):
            key = f"{level[0]}{metric.lower()}"
            assert round(micro[level][metric], 4) == known[f"{key}_micro"]
            assert round(macro[level][metric], 4) == known[f"{key}_macro_class"]


def test_micro_pooling_is_the_convention_of_valors_table_3(llp: dict[str, dict[str, Labels]]) -> None:
    val = llp["val"]
    scores = avvp_scores(val["weak"], val["weak"], val["audio"], val["visual"], pooling="micro")
    # VALOR (NeurIPS 2023), Table 3, row "Video Labels": 80.08, 67.21, 59.45.
    ours = [round(scores["segment"][metric], 3) for metric in ("A", "V", "AV")]
    assert ours == [80.075, 67.213, 59.447]


def test_predicting_nothing_beats_published_seen_only_scores(llp: dict[str, dict[str, Labels]]) -> None:
    test = llp["test"]
    nothing = np.zeros_like(test["weak"])
    scores = avvp_scores(nothing, nothing, test["audio"], test["visual"])["segment"]
    assert scores["Vo"] > 63.1  # CoLeaF (ECCV 2024), Table 6, with selected thresholds
