"""Recipes are run: one command makes what a published row is of, and sets what was measured beside it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.cli.recipes import _number
from avvp_pipe.pipeline.recipe import COLEAF_METRICS, METRICS, read_recipe
from avvp_pipe.pipeline.recipe_run import compare
from avvp_pipe.stages.datasets.llp import CLASSES as LLP_CLASSES
from avvp_pipe.store import Store, StoreError
from tests.label_world import CLASSES, World, stored, stored_generator, world
from tests.recipe_files import ACCURACY, GOOD

TINY = ("width=16", "heads=2", "ffn=16", "layers=1", "epochs=1", "warmup=0", "device=cpu")
TINY_PARSER = ("width=16", "heads=2", "ffn=16", "layers=1", "epochs=1", "device=cpu")


@pytest.fixture
def llp(tmp_path: Path) -> Store:
    """A small world that has LLP's classes, and features that follow its labels."""
    store = Store(tmp_path / "store")
    stored(store, world(40, classes=LLP_CLASSES, segments=10, shortest=10, training=20), name="llp")
    return store


def run(avvp: Callable[..., Any], store: Store, *words: str) -> Any:
    return avvp("recipes", "run", *words, "--store", store.root, "--quiet")


def test_one_command_makes_valors_labels_and_sets_them_beside_the_published_rows(
    llp: Store, avvp: Callable[..., Any]
) -> None:
    line = ("valor", "--dataset", "llp", "--features", "llp")
    planned = run(avvp, llp, *line, "--dry-run", "--json").document["steps"]
    assert [one["state"] for one in planned] == ["missing"] * 3
    ran = run(avvp, llp, *line, "--json")
    assert ran.code == 0, ran.err
    assert [one["state"] for one in ran.document["steps"]] == ["built"] * 3
    labels = llp.get("labels/llp-valor")
    assert labels.array("visual_thresholds")[:4].tolist() == [20, 15, 18, 14], "as published"
    scores = {one["split"]: one["pooled"] for one in llp.get("scores/llp-valor").attrs["scores"]}
    rows = ran.document["comparison"]
    assert len(rows) == 5
    for one in rows:
        measured = scores[one["split"]][one["pooling"]]["of"]
        for level in ("segment", "event"):
            assert one["measured"][level] == {metric: measured[level][metric] for metric in METRICS}
            for metric, printed in one[level].items():
                assert one["difference"][level][metric] == pytest.approx(measured[level][metric] - printed)
        assert one["other_clips"] == f"measured on 10, published on {'649' if one['split'] == 'val' else '1200'} (LLP)"
    assert any(one["doubts"] for one in rows)
    again = run(avvp, llp, *line)
    assert again.out.count("cached") == 3
    for part in ("published", "measured", "difference", "mean of the ten: published 69.9", "not the same clips"):
        assert part in again.out
    planned = run(avvp, llp, *line, "--dry-run", "--json").document["steps"]
    assert [one["state"] for one in planned] == ["cached"] * 3


@pytest.mark.parametrize("name", ["video-labels", "valor-calibrated", "valor-pld"])
def test_recipes_without_a_generator_run_to_their_scores(llp: Store, avvp: Callable[..., Any], name: str) -> None:
    changed = [word for one in TINY for word in ("--set", f"train-parser.{one}")] if name == "valor-pld" else []
    ran = run(avvp, llp, name, "--dataset", "llp", "--features", "llp", *changed, "--json")
    assert ran.code == 0, ran.err
    assert all(one["measured"] for one in ran.document["comparison"])
    assert ran.document["steps"][-1]["artifact"].startswith(f"scores/llp-{name}@")


@pytest.mark.parametrize("name", ["parser-han", "parser-valor", "parser-valor-plus", "parser-coleaf-valor"])
def test_a_parsers_recipe_runs_to_its_scores_on_the_features_that_it_reads(
    llp: Store, avvp: Callable[..., Any], name: str
) -> None:
    sizes = ("epochs=1", "device=cpu") if "coleaf" in name else TINY_PARSER
    changed = [word for one in (*sizes, "widths=features") for word in ("--set", f"train-parser.{one}")]
    line = (name, "--dataset", "llp", *([] if name == "parser-han" else ["--features", "llp"]), *changed)
    lacking = run(avvp, llp, *line)
    assert lacking.code == 2
    assert "give it as --parser-features NAME" in " ".join(lacking.err.split())
    ran = run(avvp, llp, *line, "--parser-features", "llp", "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["comparison"]
    metrics = METRICS + COLEAF_METRICS if "coleaf" in name else METRICS
    assert row["measured"]["segment"].keys() == row["difference"]["event"].keys() == set(metrics)
    trained = llp.get(f"parser/llp-{name}")
    assert trained.provenance["params"]["widths"] == "features"
    assert str(trained.attrs["method"]).endswith("weak labels" if name == "parser-han" else "hard valor")


def test_what_rewards_silence_is_printed_beside_what_silence_scores(llp: Store, avvp: Callable[..., Any]) -> None:
    changed = [
        word for one in ("epochs=1", "device=cpu", "widths=features") for word in ("--set", f"train-parser.{one}")
    ]
    line = ("parser-coleaf", "--dataset", "llp", "--parser-features", "llp", *changed)
    (row,) = run(avvp, llp, *line, "--json").document["comparison"]
    silence = row["baselines"]["nothing"]["segment"]
    (test,) = (one for one in llp.get("scores/llp-parser-coleaf").attrs["scores"] if one["split"] == "test")
    assert silence == {metric: test["nothing"]["segment"][metric] for metric in METRICS + COLEAF_METRICS}
    assert row["difference"]["segment"]["Vo"] == pytest.approx(row["measured"]["segment"]["Vo"] - 62.4)
    lines = [one.split() for one in run(avvp, llp, *line).out.splitlines()]
    assert ["segment", "published", "49.3", "62.4", "56.7", "37.7"] in lines
    assert ["segment", "predict", "nothing", *(f"{silence[metric]:.1f}" for metric in COLEAF_METRICS)] in lines
    shown = avvp("recipes", "show", "parser-coleaf").out
    assert all(len(one) <= 80 for one in shown.splitlines() if one.startswith(("segment", "event")))
    assert "62.4" in shown


@pytest.mark.parametrize(
    "name", ["parser-uwav", "parser-uwav-hard", "parser-uwav-clip-clap", "parser-uwav-on-valor", "parser-uwav-on-ear"]
)
def test_the_rows_of_an_ablation_are_parsers_trained_on_one_set_of_labels(
    llp: Store, avvp: Callable[..., Any], name: str
) -> None:
    assert run(avvp, llp, "valor", "--dataset", "llp", "--features", "llp").code == 0
    changed = [word for one in (*TINY_PARSER, "widths=features") for word in ("--set", f"train-parser.{one}")]
    features = ("--features" if name.endswith("clap") else "--parser-features", "llp")
    ran = run(avvp, llp, name, "--dataset", "llp", *features, "--use", "labels=labels/llp-valor", *changed, "--json")
    assert ran.code == 0, ran.err
    assert [one["artifact"].partition("/")[0] for one in ran.document["steps"]] == ["parser", "scores"]
    targets = llp.get(f"parser/llp-{name}").provenance["params"]["targets"]
    assert targets == ("hard" if name.endswith("hard") else "soft")


def one_class_a_clip(one: World) -> World:
    kept = np.arange(one.weak.shape[1]) == one.weak.argmax(axis=1)[:, None]
    audio, visual = (labels & kept[:, None] for labels in (one.audio, one.visual))
    return dataclasses.replace(one, weak=kept, audio=audio, visual=visual)


@pytest.mark.parametrize("name", ["parser-han-ave", "parser-valor-ave", "parser-uwav-ave"])
def test_rows_of_ave_are_compared_by_accuracy_beside_background_everywhere(
    tmp_path: Path, avvp: Callable[..., Any], name: str
) -> None:
    store, one = Store(tmp_path / "store"), one_class_a_clip(world(24, training=12, noise=0.1))
    stored(store, one, name="ave", dense=2)
    stored(store, one, name="ave-each")
    stored_generator(store, "uwav")
    changed = [word for each in (*TINY_PARSER, "warmup=0") for word in ("--set", f"train-parser.{each}")]
    line: tuple[str, ...] = (name, "--dataset", "ave", "--parser-features", "ave", *changed)
    if name != "parser-han-ave":
        lacking = " ".join(run(avvp, store, *line, "--features", "ave").err.split())
        assert "give it as --threshold-dataset NAME, or --use thresholds=" in lacking
        line = (*line, "--features", "ave", "--threshold-dataset", "ave-each")
    if name == "parser-uwav-ave":
        line = (*line, "--use", "generator=generator/uwav")
    ran = run(avvp, store, *line, "--json")
    assert ran.code == 0, ran.err
    (row,) = ran.document["comparison"]
    (test,) = (one for one in store.get(f"scores/ave-{name}").attrs["scores"] if one["split"] == "test")
    assert row["measured"]["accuracy"] == test["accuracy"]["of"]
    assert row["difference"]["accuracy"] == pytest.approx(test["accuracy"]["of"] - ACCURACY[name])
    assert row["baselines"]["nothing"]["accuracy"] == test["accuracy"]["nothing"]
    assert store.get(f"parser/ave-{name}").attrs["selected_by"] == "val_accuracy"
    lines = [one.split() for one in run(avvp, store, *line).out.splitlines()]
    for words in (["published", str(ACCURACY[name])], ["predict", "nothing", f"{test['accuracy']['nothing']:.1f}"]):
        assert words in lines
    assert f"accuracy of seconds {ACCURACY[name]} %" in avvp("recipes", "show", name).out


def test_accuracy_that_nothing_has_measured_stays_empty(llp: Store, tmp_path: Path, avvp: Callable[..., Any]) -> None:
    (tmp_path / "mine.toml").write_text(GOOD.replace("segment = { A = 50.0 }", "accuracy = 50.0"))
    line = (str(tmp_path / "mine.toml"), "--dataset", "llp", "--features", "llp")
    (row,) = run(avvp, llp, *line, "--json").document["comparison"]
    assert "accuracy" not in row["measured"]
    assert "accuracy" not in row["difference"]
    assert ["measured", "-"] in [one.split() for one in run(avvp, llp, *line).out.splitlines()]


def test_where_only_what_is_heard_and_seen_at_once_is_labelled_av_is_compared(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    store = Store(tmp_path / "store")
    stored(store, world(24, training=12), name="unav", dense=2)
    changed = [word for one in TINY_PARSER for word in ("--set", f"train-parser.{one}")]
    line = ("parser-han-unav", "--dataset", "unav", "--parser-features", "unav", *changed)
    (row,) = run(avvp, store, *line, "--json").document["comparison"]
    assert row["measured"]["segment"].keys() == row["difference"]["segment"].keys() == {"AV"}
    assert "35.0" in run(avvp, store, *line).out


@pytest.mark.parametrize("name", ["uwav", "uwav-printed", "ear"])
def test_a_generator_that_is_there_stands_in_for_pre_training(llp: Store, avvp: Callable[..., Any], name: str) -> None:
    method = name.partition("-")[0]
    stored_generator(llp, method)
    line = (name, "--dataset", "llp", "--features", "llp", "--use", f"generator=generator/{method}")
    ran = run(avvp, llp, *line, "--json")
    assert ran.code == 0, ran.err
    assert [one["artifact"].partition("/")[0] for one in ran.document["steps"]] == ["thresholds", "labels", "scores"]
    assert llp.get(f"labels/llp-{name}").attrs["method"] == method


def test_a_recipe_with_pre_training_runs_from_end_to_end(demo_copy: Any, avvp: Callable[..., Any]) -> None:
    changed = [word for one in TINY for word in ("--set", f"pretrain.{one}")]
    starts = ("--dataset", "target", "--features", "target", "--pretrain-dataset", "pretrain", "--apart-from", "target")
    line = ("uwav", *starts, "--pretrain-features", "pretrain", *changed)
    ran = run(avvp, Store(demo_copy.store), *line, "--json")
    assert ran.code == 0, ran.err
    stages = ["generator", "thresholds", "labels", "scores"]
    assert [one["artifact"].partition("/")[0] for one in ran.document["steps"]] == stages
    assert ran.document["steps"][0]["artifact"].startswith("generator/pretrain-uwav@")
    made_of = Store(demo_copy.store).get("generator/pretrain-uwav").provenance["inputs"]
    assert made_of["apart_from"] == str(Store(demo_copy.store).get("dataset/target").reference)
    assert {one["split"] for one in ran.document["comparison"] if one["measured"]} == {"val", "test"}


def test_a_split_without_dense_labels_is_not_compared(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    store = Store(tmp_path / "store")
    one = world(12, classes=CLASSES, training=4)
    stored(store, one, name="own")
    (tmp_path / "mine.toml").write_text(GOOD.replace('split = "val"', 'split = "test"'))
    ran = run(avvp, store, str(tmp_path / "mine.toml"), "--dataset", "own", "--features", "own", "--json")
    assert ran.document["comparison"][0]["measured"] is not None
    joint = Store(tmp_path / "joint")
    stored(joint, one, name="own", dense=2)
    line = (str(tmp_path / "mine.toml"), "--dataset", "own", "--features", "own")
    ran = run(avvp, joint, *line, "--json")
    assert (ran.document["comparison"][0]["measured"], ran.document["comparison"][0]["difference"]) == (None, None)
    assert "nothing to compare" in run(avvp, joint, *line).out


@pytest.mark.parametrize(("value", "shown"), [(-0.04, "+0.0"), (0.04, "+0.0"), (-0.06, "-0.1"), (None, "-")])
def test_a_difference_that_rounds_to_nothing_has_no_minus(value: float | None, shown: str) -> None:
    assert _number(value, signed=True) == shown


def test_only_scores_are_compared(llp: Store) -> None:
    with pytest.raises(StoreError, match="holds no scores"):
        compare(read_recipe("valor"), llp.get("dataset/llp"))


@pytest.mark.parametrize("words", [("--use", "generator"), ("--set", "nothing=1")])
def test_words_that_are_no_pair_are_wrong_use(llp: Store, avvp: Callable[..., Any], words: tuple[str, ...]) -> None:
    ran = run(avvp, llp, "valor", "--dataset", "llp", "--features", "llp", *words)
    assert ran.code == 2
    assert "for example" in ran.err
