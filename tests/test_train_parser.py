"""Training a parser: what it reads, what it minimises, and that it can be stopped and gone on with."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from avvp_pipe.stages.ave_accuracy import ave_accuracy, class_indices
from avvp_pipe.stages.metrics import avvp_scores
from avvp_pipe.stages.parsers import PARSERS, ParserName, parser_method
from avvp_pipe.stages.parsers.feeding import free_memory_bytes, keeps_in_memory
from avvp_pipe.stages.parsers.recipes import NETWORK_FIELDS, PUBLISHED
from avvp_pipe.stages.rows import JOINT
from avvp_pipe.stages.stage import ParameterError, make_params
from avvp_pipe.stages.train_parser import STAGE, Params
from avvp_pipe.store import Store, parse_reference
from tests.parser_world import CLASSIC, put_world, same_arrays, step_of, train, weights_of

PROGRAM = Path(__file__).with_name("die_in_training.py")
MAPS = {"audio_map": 768, "visual": 768, "motion": 512}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With features of teachers."""
    opened = Store(tmp_path / "store")
    put_world(opened)
    return opened


def test_the_registry_and_the_command_name_the_same_parsers() -> None:
    assert tuple(PARSERS) == get_args(ParserName)
    for name in PARSERS:
        assert parser_method(name).name == name
    with pytest.raises(ValueError, match="no parser 'nan'; there are han, valor"):
        parser_method("nan")


def test_recipes_name_parameters_of_the_stage() -> None:
    names = {field.name for field in fields(Params)}
    assert names >= {*PUBLISHED, *NETWORK_FIELDS}
    for name in PARSERS:
        assert set(parser_method(name).recipe) <= set(PUBLISHED), name
        make_params(STAGE, parser_method(name).recipe)


@pytest.mark.parametrize("name", list(PARSERS))
def test_every_parser_trains_on_its_published_streams_and_predicts_every_clip(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path)
    method = parser_method(name)
    put_world(store, widths={"uwav-clip-clap": {"audio": 512, "visual": 768}, "valor++": MAPS}.get(name, CLASSIC))
    found, _ = train(store, parser=name, epochs=1)
    attrs = found.attrs
    assert attrs["parser"] == name
    assert attrs["streams"] == list(method.network.widths())
    assert attrs["gate"] == asdict(method.gate)
    assert attrs["network"]["classes"] == 3
    assert attrs["selected_by"] == method.recipe.get("select", "val_Type")
    status = found.array("status") == 1
    assert found.array("audio_probs")[status].any()
    assert {found.array(f"{modality}_hard").shape for modality in ("audio", "visual")} == {(20, 4, 3)}


def test_a_parser_can_be_as_wide_as_its_features_are(store: Store) -> None:
    found, _ = train(store, parser="han", widths="features", schedule="step", learning_rate=1e-3)
    assert found.attrs["widths"] == {"audio": 6, "visual": 10}


def test_streamed_features_train_to_the_same_weights_as_those_in_memory(store: Store, tmp_path: Path) -> None:
    held, _ = train(store, features_in="memory")
    other = Store(tmp_path / "other")
    put_world(other)
    streamed, notes = train(other, features_in="stream")
    assert any("read batch by batch" in note for note in notes)
    assert same_arrays(weights_of(held), weights_of(streamed))
    assert held.key == streamed.key


def test_features_are_held_in_memory_where_they_fit() -> None:
    here = torch.device("cpu")
    free = free_memory_bytes(here)
    assert free > 2**20
    assert keeps_in_memory("auto", 2**20, here)
    assert not keeps_in_memory("auto", 10 * free, here)
    assert keeps_in_memory("memory", 10 * free, here)
    assert not keeps_in_memory("stream", 1, here)


def test_two_runs_of_one_seed_are_the_same_and_another_seed_is_not(store: Store, tmp_path: Path) -> None:
    first, _ = train(store, seed=5)
    other = Store(tmp_path / "other")
    put_world(other)
    again, _ = train(other, seed=5)
    assert same_arrays(weights_of(first), weights_of(again))
    third, _ = train(store, seed=6)
    assert not same_arrays(weights_of(first), weights_of(third))


@pytest.mark.parametrize(
    ("parser", "epoch"), [("uwav-clip-clap", 1), ("uwav-clip-clap", 2), ("uwav-clip-clap", 3), ("coleaf", 2)]
)
def test_training_that_is_killed_ends_with_the_same_weights_and_history(
    tmp_path: Path, parser: str, epoch: int
) -> None:
    store, whole = Store(tmp_path / "killed"), Store(tmp_path / "whole")
    for one in (store, whole):
        put_world(one)
    params: dict[str, Any] = {"parser": parser, "epochs": 4, "widths": "features"}
    program = (sys.executable, PROGRAM, tmp_path / "killed", str(epoch), json.dumps(asdict(step_of(**params))))
    killed = subprocess.run(program, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert store.find(parse_reference("parser/p")) is None
    found, _ = train(store, **params)
    wanted, _ = train(whole, **params)
    assert same_arrays(weights_of(found), weights_of(wanted))
    assert found.array("history/epoch").tolist() == [1, 2, 3, 4]


def test_early_stopping_ends_after_so_many_epochs_without_a_better_one(store: Store) -> None:
    found, _ = train(store, patience=2, epochs=40, learning_rate=1e-6, learning_rate_min=0)
    assert found.attrs["epochs"] == found.attrs["best_epoch"] + 2 < 40
    longer, _ = train(store, epochs=40, learning_rate=1e-6, learning_rate_min=0)
    assert longer.attrs["epochs"] == 40


@pytest.mark.parametrize("select", ["val_Type", "val_event_A", "val_mean10", "val_coleaf10"])
def test_the_best_epoch_is_that_of_the_score_asked_for(store: Store, select: str) -> None:
    found, _ = train(store, select=select, epochs=6, learning_rate=0.01)
    assert found.attrs["best_epoch"] == found.array(f"history/{select}").argmax() + 1
    last, _ = train(store, select=select, ties="last", epochs=6, learning_rate=0.01)
    scores = last.array(f"history/{select}")
    assert last.attrs["best_epoch"] == np.flatnonzero(scores == scores.max())[-1] + 1


def test_stored_scores_are_those_of_the_stored_predictions(store: Store) -> None:
    found, dataset = train(store)[0], store.get("dataset/mine")
    rows = np.flatnonzero(np.array(dataset.strings("splits"), dtype=str) == "val")
    heard, seen = (found.array(f"{modality}_hard")[rows] for modality in ("audio", "visual"))
    truth = [dataset.array(modality)[rows] for modality in ("audio", "visual")]
    scores = avvp_scores(heard, seen, truth[0], truth[1], lengths=dataset.array("lengths")[rows])
    best = found.attrs["best_epoch"] - 1
    assert found.array("history/val_Type")[best] == pytest.approx(scores["segment"]["Type"])
    tens = [scores[level][one] for level in scores for one in ("Ao", "Vo", "AV", "Typeo", "Evento")]
    assert found.array("history/val_coleaf10")[best] == pytest.approx(np.mean(tens))


@pytest.mark.parametrize("parser", ["uwav-clip-clap", "coleaf"])
def test_jointly_labelled_sets_are_selected_by_what_is_known_of_them(tmp_path: Path, parser: str) -> None:
    store = Store(tmp_path)
    dataset = put_world(store, dense=JOINT)["dataset"]
    found, _ = train(store, parser=parser, widths="features")
    assert found.attrs["selected_by"] == "val_joint_AV"
    rows = np.flatnonzero(np.array(dataset.strings("splits"), dtype=str) == "val")
    both = (found.array("audio_hard") & found.array("visual_hard"))[rows]
    truth = dataset.array("audio_visual")[rows]
    scores = avvp_scores(both, both, truth, truth, lengths=dataset.array("lengths")[rows])
    best = found.attrs["best_epoch"] - 1
    assert found.array("history/val_joint_AV")[best] == pytest.approx(scores["segment"]["AV"])
    assert found.array("history/val_joint_event_AV")[best] == pytest.approx(scores["event"]["AV"])
    with pytest.raises(ParameterError, match="no such score; there are val_joint_AV, val_joint_event_AV"):
        train(store, parser=parser, widths="features", select="val_Type")


def test_background_can_be_a_class_of_its_own_and_accuracy_selects(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_world(store, dense=JOINT, single=True)
    found, _ = train(store, background="column", targets="hard", mixup="hard", video="none", epochs=4)
    assert found.attrs["selected_by"] == "val_accuracy"
    assert found.attrs["network"]["classes"] == 4
    heard, seen, dataset = found.array("audio_hard"), found.array("visual_hard"), store.get("dataset/mine")
    assert np.array_equal(heard, seen)
    assert heard.shape == (20, 4, 3)
    assert heard.sum(axis=2).max() == 1
    rows = np.flatnonzero(np.array(dataset.strings("splits"), dtype=str) == "val")
    truth = class_indices(dataset.array("audio_visual")[rows])
    wanted = ave_accuracy(class_indices(heard[rows]), truth, lengths=dataset.array("lengths")[rows])
    assert found.array("history/val_accuracy")[found.attrs["best_epoch"] - 1] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"targets": "weak"}, {"video"}),
        ({"targets": "weak", "video": "guided"}, {"video", "audio_video", "visual_video"}),
        ({"targets": "hard", "mixup": "none"}, {"video", "segment_audio", "segment_visual"}),
        ({"mixup": "hard"}, {"video", "segment_audio", "segment_visual", "mixup_audio", "mixup_visual"}),
        ({"segment": "none", "mixup": "soft"}, {"video", "mixup_audio", "mixup_visual"}),
        ({"segment": "kd", "mixup": "none"}, {"video", "segment_audio", "segment_visual"}),
    ],
)
def test_switches_of_the_objective_are_seen_in_the_history(
    store: Store, changes: dict[str, Any], terms: set[str]
) -> None:
    found, _ = train(store, epochs=1, **changes)
    names = {name.removeprefix("history/") for name in found.array_names() if name.startswith("history/")}
    assert {name for name in names if not name.startswith("val_")} - {"epoch", "rate", "loss"} == terms


@pytest.mark.parametrize("change", [
    {"targets": "hard", "mixup": "soft"}, {"mixup": "hard"}, {"mixup": "none"}, {"segment": "global"},
    {"segment": "kd"}, {"reweight": "paper"}, {"reweight": "none"}, {"video": "guided"},
    {"video_loss": "asymmetric"}, {"video": "none"},
    {"optimiser": "adam"}, {"schedule": "step"}, {"clip_norm": 1e-3}, {"beta1": 0.5}, {"norm": "pre"},
    {"switches": "stacking=legacy, order=symmetric"}, {"precision": "bf16"}, {"learning_rate": 1e-3},
])  # fmt: skip
def test_every_switch_changes_what_is_learnt(store: Store, change: dict[str, Any]) -> None:
    usual, _ = train(store, layers=2)
    other, _ = train(store, name="other", layers=2, **change)
    assert usual.key != other.key
    mine, theirs = weights_of(usual), weights_of(other)
    assert not same_arrays({k: v for k, v in mine.items() if k in theirs}, theirs)


def test_labels_train_a_parser_that_was_published_with_weak_ones_alone(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_world(store, widths=CLASSIC)
    alone, _ = train(store, parser="han", labels=False, warmup=None)
    taught, _ = train(store, parser="han", warmup=None)
    assert alone.attrs["method"] == "han, weak labels"
    assert taught.attrs["method"] == "han, hard uwav"
    assert (alone.provenance["params"]["targets"], taught.provenance["params"]["targets"]) == ("weak", "hard")


def test_several_seeds_in_one_command_make_an_artifact_each_and_tell_mean_and_spread(
    store: Store, avvp: Callable[..., Any]
) -> None:
    small = ("--width", "8", "--heads", "1", "--ffn", "8", "--layers", "1", "--epochs", "2", "--warmup", "0")
    inputs = ("--dataset", "mine", "--features", "mine", "--labels", "mine", "--store", str(store.root))
    line = ("train-parser", *inputs, *small, "--device", "cpu", "--name", "three", "--seeds", "1,2,3")
    planned = avvp(*line, "--dry-run", "--json")
    assert [one["state"] for one in planned.document["steps"]] == ["missing"] * 3
    ran = avvp(*line, "--json")
    assert ran.code == 0, ran.err
    names = [one["artifact"].partition("@")[0] for one in ran.document["artifacts"]]
    assert names == ["parser/three-seed1", "parser/three-seed2", "parser/three-seed3"]
    found = ran.document["validation"]["val_Type"]
    scores = []
    for name in names:
        one = store.get(name)
        scores.append(one.array("history/val_Type")[one.attrs["best_epoch"] - 1])
    assert found["values"] == scores
    assert found["mean"] == pytest.approx(np.mean(scores))
    assert found["deviation"] == pytest.approx(np.std(scores, ddof=1))
    shown = avvp(*line)
    assert shown.out.count("cached parser/three-seed") == 3
    assert "val_Type" in shown.out
    assert avvp(*line, "--seed", "4").code == 2


def test_curves_are_written_for_tensorboard_and_change_nothing_else(store: Store, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, _ = train(store, seed=5)
    other = Store(tmp_path / "other")
    put_world(other)
    drawn, _ = train(other, seed=5, tensorboard=str(tmp_path / "curves"))
    assert (drawn.key, drawn.digest) == (plain.key, plain.digest)
    (folder,) = (tmp_path / "curves").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    for name in ("loss", "val_Type", "rate"):
        points = [(point.step, point.value) for point in events.Scalars(name)]
        kept = drawn.array(f"history/{name}")
        assert points == [(place, pytest.approx(value)) for place, value in enumerate(kept, 1)]


def test_without_the_package_of_tensorboard_the_command_to_install_it_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ParameterError, match=r"pip install 'avvp-pipe\[tensorboard\]'"):
        train(store, tensorboard="curves")
