"""What scores say of what was called where: gates, confusion between modalities, reliability, silence, accuracy."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.cli.show_decisions import gate_words
from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.blocks.calibration_error import BINS, reliability
from avvp_pipe.stages.blocks.quality import KINDS, modality_confusion
from avvp_pipe.stages.metrics import METRICS, avvp_scores
from avvp_pipe.stages.parsers import PARSERS, parser_method
from avvp_pipe.stages.parsers.records import GateSettings
from avvp_pipe.store import Artifact, Store
from avvp_pipe.store.verify import verify
from tests.parser_world import put_world, train
from tests.trees import Told

Labels = NDArray[np.bool_]
AT_LEAST, ABOVE = GateSettings(strict=False), GateSettings(strict=True)
OFFICIAL = {
    **dict.fromkeys(("han", "valor", "valor+", "valor++"), AT_LEAST),
    **dict.fromkeys(("uwav", "uwav-clip-clap", "ear"), ABOVE),
    "coleaf": GateSettings("modality", 0.52, 0.25, strict=False),
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    opened = Store(tmp_path / "store")
    put_world(opened, failed=(14,))
    return opened


def evaluate(store: Store, predictions: str, **more: Any) -> Artifact:
    inputs = {"predictions": predictions, "dataset": "dataset/mine"} | more
    return run_step(store, Step("evaluate", "s", {}, inputs), progress=Told()).artifact


def of_split(store: Store, predictions: str, split: str) -> dict[str, Any]:
    """What is known of the clips of a split that did not fail: called, truth, soft, lengths, weak."""
    dataset, found = store.get("dataset/mine"), store.get(predictions)
    rows = np.flatnonzero((np.array(dataset.strings("splits")) == split) & (found.array("status") == 1))
    pair = ("audio", "visual")
    return {
        "called": tuple(found.array(f"{one}_hard")[rows] for one in pair),
        "soft": {one: found.array(f"{one}_probs")[rows] for one in pair},
        "truth": tuple(dataset.array(one)[rows] for one in pair),
        "video": found.array("video_probs")[rows],
        "lengths": dataset.array("lengths")[rows],
        "weak": dataset.array("weak")[rows],
    }


def test_every_parser_decides_as_its_release_does() -> None:
    assert {name: parser_method(name).gate for name in PARSERS} == OFFICIAL


@pytest.mark.parametrize(("parser", "words"), [
    ("uwav-clip-clap", "second above 0.5, clip (pooled) above 0.5"),
    ("coleaf", "second at least 0.25, clip (in that modality) at least 0.52"),
])  # fmt: skip
def test_scores_are_those_of_the_parsers_own_decisions_and_say_which(
    store: Store, avvp: Callable[..., Any], parser: str, words: str
) -> None:
    train(store, parser=parser, widths="features", epochs=1)
    found = evaluate(store, "parser/p")
    assert found.attrs["gate"] == asdict(OFFICIAL[parser])
    one = of_split(store, "parser/p", "val")
    (heard, seen), truth = one["called"], one["truth"]
    assert found.attrs["scores"][0]["of"] == avvp_scores(heard, seen, truth[0], truth[1], one["lengths"])
    for hard, soft in zip(one["called"], one["soft"].values(), strict=True):
        if parser == "coleaf":  # whose clips' probabilities of each modality are not stored
            assert not (hard & (soft < 0.25)).any()
        else:
            assert np.array_equal(hard, (soft > 0.5) & (one["video"] > 0.5)[:, None])
    assert gate_words(found.attrs["gate"]) == words
    assert f"decisions: {words}" in avvp("show", "scores/s", "--store", store.root).out


def test_decisions_made_otherwise_are_told_with_their_scores(store: Store) -> None:
    train(store, epochs=1)
    params = {"gate": "none", "threshold": 0.3, "compare": "at-least", "device": "cpu"}
    inputs = {"parser": "parser/p", "features": "features/mine"}
    run_step(store, Step("parse", "others", params, inputs), progress=Told())
    found = evaluate(store, "predictions/others")
    assert gate_words(found.attrs["gate"]) == "second at least 0.3"
    assert evaluate(store, "labels/mine").attrs["gate"] is None, "labels are no parser's decisions"


@given(arrays(bool, (2, 2, 3, 4, 2)), arrays(np.int64, 3, elements=st.integers(1, 4)))
@settings(max_examples=60, deadline=None)
def test_confusion_counts_every_second_of_every_class_once(pairs: Labels, lengths: NDArray[np.int64]) -> None:
    called, truth = pairs
    found = modality_confusion((called[0], called[1]), (truth[0], truth[1]), lengths)
    plain = np.zeros((4, 4, 2), int)
    for clip in range(3):
        for second in range(lengths[clip]):
            for column in range(2):
                kinds = []
                for heard, seen in (truth[:, clip, second, column], called[:, clip, second, column]):
                    kinds.append({(0, 0): "none", (1, 0): "audio only", (0, 1): "visual only", (1, 1): "both"}[
                        int(heard), int(seen)
                    ])  # fmt: skip
                plain[KINDS.index(kinds[0]), KINDS.index(kinds[1]), column] += 1
    np.testing.assert_array_equal(found, plain)


def test_confusion_is_stored_by_split_and_class_and_told(store: Store, avvp: Callable[..., Any]) -> None:
    train(store, epochs=1)
    found = evaluate(store, "parser/p")
    stored = found.array("modality_confusion")
    assert stored.shape == (2, 4, 4, 3)
    for place, split in enumerate(("val", "test")):
        one = of_split(store, "parser/p", split)
        np.testing.assert_array_equal(stored[place], modality_confusion(one["called"], one["truth"], one["lengths"]))
        assert stored[place].sum() == one["lengths"].sum() * 3
    # The official counts of both at once, once more.
    counts = found.array("class_counts")[:, 0, 2]
    np.testing.assert_array_equal(counts[:, 0], stored[:, 3, 3])
    np.testing.assert_array_equal(counts[:, 1], stored[:, :3, 3].sum(axis=1))
    line = ("evaluate", "parser/p", "--dataset", "mine", "--store", store.root, "--name", "s")
    document = avvp(*line, "--json").document
    told = document["modality_confusion"][1]
    assert (told["split"], tuple(told["kinds"])) == ("test", KINDS)
    assert told["all"] == stored[1].sum(axis=2).tolist()
    assert [one["class"] for one in told["classes"]] == ["Bell", "Drum", "Flute"]
    assert told["classes"][2]["counts"] == stored[1, :, :, 2].tolist()
    _, title, table = avvp(*line).out.partition("test, what each second and class truly is")
    assert title
    assert max(map(len, (title + table).splitlines())) <= 80
    assert [line.split()[-1] for line in table.splitlines()[3:7]] == [
        "-" if not of_kind.sum() else f"{100 * of_kind[3].sum() / of_kind.sum():.1f}" for of_kind in stored[1]
    ]
    assert verify(found).findings == ()


def test_reliability_of_a_parsers_probabilities_is_stored_bin_by_bin(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    store = Store(tmp_path)
    put_world(store, single=True)  # in which weak labels do not name every class
    train(store, epochs=1)
    found, one = evaluate(store, "parser/p"), of_split(store, "parser/p", "val")
    stored, attributes = found.array("reliability"), found.attrs["scores"][0]
    assert stored.shape == (2, 2, 3, BINS)
    for place, (modality, truth) in enumerate(zip(("audio", "visual"), one["truth"], strict=True)):
        wanted = reliability(one["soft"][modality], truth, lengths=one["lengths"])
        np.testing.assert_array_equal(stored[0, place], np.array(wanted))
        assert attributes["calibration_error"][modality] == pytest.approx(wanted.error)
        named = reliability(one["soft"][modality], truth, weak=one["weak"], lengths=one["lengths"])
        assert attributes["calibration_error_named"][modality] == pytest.approx(named.error)
        assert named.error != pytest.approx(wanted.error)
    document = avvp("evaluate", "parser/p", "--dataset", "mine", "--store", store.root, "--json").document
    bins = document["reliability"][0]["audio"]
    assert sum(each["cells"] for each in bins) == one["lengths"].sum() * 3
    assert all(each["from"] <= each["said"] <= each["to"] and each["cells"] > 0 for each in bins)


def test_where_silence_scores_as_well_it_is_said(store: Store, avvp: Callable[..., Any]) -> None:
    """Nothing is called: CoLeaF's audio-only and visual-only scores still reward it."""
    from tests.conftest import build_small

    labels = store.get("labels/mine")
    names = [name for name in labels.array_names() if name not in ("video_ids", "splits")]
    quiet = {name: labels.array(name) for name in names}
    quiet |= {f"{one}_hard": np.zeros_like(quiet[f"{one}_hard"]) for one in ("audio", "visual")}
    texts = {name: labels.strings(name) for name in ("video_ids", "splits")}
    classes = labels.attrs["classes"]
    build_small(store, "labels/quiet", arrays={**quiet, **texts}, classes=classes, method="x")
    one = evaluate(store, "labels/quiet").attrs["scores"][0]
    assert set(one["nothing"]["segment"]) == set(METRICS)
    assert one["of"] == one["nothing"]
    shown = avvp("show", "scores/s", "--store", store.root).out
    assert "val, segment-level: no better than predicting nothing in Ao, Vo, Typeo, Evento" in shown.splitlines()


@pytest.mark.real_data
def test_accuracy_on_the_real_test_split_of_ave_has_the_documented_baselines(
    real_data: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    from tests.conftest import build_small

    store = Store(tmp_path)
    params = {"reader": "ave", "source": str(real_data / "ave")}
    dataset = run_step(store, Step("dataset", "mine", params), progress=Told()).artifact
    right = dataset.array("audio_visual")
    arrays_of: dict[str, Any] = {name: dataset.array(name) for name in ("weak", "lengths")}
    arrays_of |= {name: dataset.strings(name) for name in ("video_ids", "splits")}
    hard = {f"{one}_hard": right for one in ("audio", "visual")}
    soft = {f"{one}_soft": right.astype(np.float32) for one in ("audio", "visual")}
    status = np.ones(len(right), np.uint8)
    classes = dataset.attrs["classes"]
    build_small(store, "labels/right", arrays={**arrays_of, **hard, **soft, "status": status}, classes=classes)
    test = evaluate(store, "labels/right").attrs["scores"][-1]
    assert (test["split"], test["dense"], test["clips"]) == ("test", "joint", 402)
    assert test["accuracy"]["of"] == 100
    assert round(test["accuracy"]["nothing"], 1) == 17.8
    assert round(test["accuracy"]["video_labels"], 1) == 82.2
    told = "test, accuracy of seconds, percent: these 100.0, video labels 82.2, predict nothing 17.8"
    assert told in avvp("show", "scores/s", "--store", store.root).out
