"""Scores of the video-label baseline on LLP's real annotations."""

import json
from pathlib import Path

import numpy as np
import pytest

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks import quality
from avvp_pipe.stages.metrics import METRICS
from avvp_pipe.store import Artifact, Store
from tests.scores_world import evaluate, predict
from tests.trees import Told


@pytest.fixture(scope="module")
def llp_scores(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Scores of the video-label baseline on the real annotations."""
    store = Store(tmp_path_factory.mktemp("llp"))
    params = {"reader": "llp", "source": str(real_data / "llp")}
    dataset = run_step(store, Step("dataset", "d", params), progress=Told()).artifact
    everywhere = np.repeat(dataset.array("weak")[:, None], 10, axis=1)
    predict(store, hard={"audio": everywhere, "visual": everywhere})
    return evaluate(store)


@pytest.mark.real_data
def test_video_labels_on_llp_score_as_published(llp_scores: Artifact, real_data: Path) -> None:
    known = json.loads((real_data / "llp" / "llp_video_label_baseline.json").read_text())["2024"]
    assert [(one["split"], one["clips"]) for one in llp_scores.attrs["scores"]] == [("val", 649), ("test", 1200)]
    for one in llp_scores.attrs["scores"]:
        assert one["of"] == one["video_labels"]
        for row in ("video_labels", "nothing"):
            official = known[one["split"]]["predict_nothing" if row == "nothing" else row]["official"]
            for level, prefix in (("segment", "Seg"), ("event", "Evt")):
                for metric in METRICS[:5]:
                    assert round(one[row][level][metric], 4) == official[f"{prefix}-{metric}"]
        # CoLeaF's numbers of nothing at all, as counted with another program.
        silent = {"val": (36.67, 67.33, 26.35), "test": (38.08, 65.58, 27.0)}[one["split"]]
        for level in ("segment", "event"):
            assert [one["nothing"][level][name] for name in ("Ao", "Vo", "Evento")] == pytest.approx(silent, abs=0.05)
    # VALOR (NeurIPS 2023), Table 3, micro: 80.08, 67.21, 59.45.
    micro = llp_scores.attrs["scores"][0]["pooled"]["micro"]["of"]["segment"]
    assert [round(micro[metric], 3) for metric in ("A", "V", "AV")] == [80.075, 67.213, 59.447]
    macro = llp_scores.attrs["scores"][0]["pooled"]["class-macro"]["of"]["segment"]
    assert [round(macro[metric], 2) for metric in ("A", "V", "AV")] == [81.58, 77.86, 68.34]


@pytest.mark.real_data
def test_shares_of_true_seconds_on_llp_are_those_counted_by_hand(llp_scores: Artifact) -> None:
    # Seconds of LLP's validation clips with the class in the weak label, counted from the files with another program.
    places = {name: index for index, name in enumerate(llp_scores.attrs["classes"])}
    val = llp_scores.strings("tally_splits").index("val")
    shares = {
        modality: quality.label_rates(llp_scores.array("tally")[val, place])
        for place, modality in enumerate(("audio", "visual"))
    }
    wanted = {("audio", "Frying_(food)"): 0.97, ("audio", "Accordion"): 0.97, ("audio", "Helicopter"): 0.91,
              ("visual", "Blender"): 0.97, ("visual", "Dog"): 0.93, ("visual", "Chicken_rooster"): 0.90,
              ("visual", "Speech"): 0.11}  # fmt: skip
    for (modality, name), share in wanted.items():
        labelled, true = shares[modality]
        assert labelled[places[name]] == 1
        assert true[places[name]] == pytest.approx(share, abs=0.005), name
