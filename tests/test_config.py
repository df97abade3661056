"""A run's file: what it may say, what is wrong with it, how it is changed, and what it settles to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.run_config import config_of, read_config
from avvp_pipe.pipeline.run_schema import run_schema
from avvp_pipe.pipeline.run_settled import settled_config
from avvp_pipe.pipeline.run_steps import plan_run
from avvp_pipe.pipeline.tables import dumped, table_of
from avvp_pipe.stages.stage import ParameterError

GOOD = """\
title: a run
store: artifacts
defaults:
  extract: {visual-teacher: tiny-clip, audio_teacher: tiny-clap}
steps:
- {id: clips, stage: dataset, name: mine, params: {source: clips.jsonl}}
- {id: features, stage: extract, inputs: {dataset: clips}}
- id: thresholds
  stage: calibrate
  inputs: {dataset: clips, features: features}
  params: {method: valor, bootstrap: 20}
- id: labels
  stage: pseudolabel
  inputs: {dataset: clips, features: features, thresholds: thresholds}
  params: {method: valor}
- {id: scores, stage: evaluate, inputs: {predictions: labels, dataset: clips}}
"""
SEEDED = (
    GOOD
    + """\
- {id: parser, stage: train-parser, inputs: {dataset: clips, features: features, labels: labels}, seeds: [1, 2]}
- {id: parser-scores, stage: evaluate, inputs: {predictions: parser, dataset: clips}}
"""
)
WITH_RECIPE = """\
steps:
- {id: clips, stage: dataset, name: mine, params: {source: clips.jsonl}}
- id: uwav
  recipe: uwav
  inputs: {dataset: clips, features: features/theirs, pretrain-dataset: dataset/unav, pretrain-features: features/unav}
  params: {pretrain: {epochs: 3}}
- {id: again, stage: evaluate, name: again, inputs: {predictions: uwav.labels, dataset: clips}}
"""


def steps_of(text: str, *settings: str) -> dict[str, Any]:
    return {one.id: one.step for one in plan_run(config_of(text, settings))}


def test_steps_are_called_as_their_commands_call_them_and_read_what_earlier_ones_make() -> None:
    steps = steps_of(GOOD)
    assert [str(step.reference) for step in steps.values()] == [
        "dataset/mine", "features/mine", "thresholds/mine-valor", "labels/mine-valor", "scores/mine-valor",
    ]  # fmt: skip
    assert steps["labels"].inputs == {
        "dataset": "dataset/mine", "features": "features/mine", "thresholds": "thresholds/mine-valor",
    }  # fmt: skip
    assert steps["features"].params == {"visual_teacher": "tiny-clip", "audio_teacher": "tiny-clap"}


def test_a_step_with_seeds_and_what_reads_it_come_once_for_each() -> None:
    steps = steps_of(SEEDED)
    assert [name for name in steps if "parser" in name] == [
        "parser-seed1", "parser-seed2", "parser-scores-seed1", "parser-scores-seed2",
    ]  # fmt: skip
    assert steps["parser-seed2"].params["seed"] == 2
    assert steps["parser-scores-seed2"].inputs["predictions"] == "parser/mine-seed2"
    assert str(steps["parser-scores-seed1"].reference) == "scores/mine-seed1"


def test_a_recipe_takes_the_place_of_its_steps() -> None:
    steps = steps_of(WITH_RECIPE)
    assert list(steps) == ["clips", "uwav.generator", "uwav.thresholds", "uwav.labels", "uwav.scores", "again"]
    assert steps["uwav.generator"].params["epochs"] == 3
    assert steps["uwav.labels"].inputs["features"] == "features/theirs"
    assert steps["again"].inputs["predictions"] == "labels/mine-uwav"
    assert steps_of(WITH_RECIPE, "pretrain.epochs=5")["uwav.generator"].params["epochs"] == "5"


@pytest.mark.parametrize("text", [GOOD, SEEDED, WITH_RECIPE])
@pytest.mark.parametrize("full", [False, True])
def test_what_a_run_settles_to_is_a_run_with_the_same_steps_and_settles_to_itself(text: str, full: bool) -> None:
    settled = settled_config(config_of(text), store="s", full=full)
    again = config_of(dumped(settled))
    assert settled_config(again, store="s", full=full) == settled
    before = [(one.step.reference, dict(one.step.inputs)) for one in plan_run(config_of(text))]
    assert [(one.step.reference, dict(one.step.inputs)) for one in plan_run(again)] == before


@pytest.mark.parametrize(
    ("setting", "step", "parameter", "value"),
    [
        ("calibrate.mode=class-agnostic", "thresholds", "mode", "class-agnostic"),
        ("thresholds.bootstrap=5", "thresholds", "bootstrap", "5"),
        ("steps.thresholds.params.bootstrap=7", "thresholds", "bootstrap", "7"),
        ("extract.visual-teacher=ViT-L-14", "features", "visual_teacher", "ViT-L-14"),
        ("features.stored_as=float16", "features", "stored_as", "float16"),
    ],
)
def test_set_changes_one_place(setting: str, step: str, parameter: str, value: str) -> None:
    before, after = steps_of(GOOD), steps_of(GOOD, setting)
    assert after[step].params[parameter] == value
    assert {name: one for name, one in after.items() if name != step} == {
        name: one for name, one in before.items() if name != step
    }


def test_set_reaches_names_inputs_seeds_and_the_store() -> None:
    settings = ("steps.clips.name=other", "steps.labels.inputs.features=features/x", "store=elsewhere")
    assert config_of(GOOD, settings).store == "elsewhere"
    steps = steps_of(GOOD, *settings)
    assert str(steps["clips"].reference) == "dataset/other"
    assert steps["labels"].inputs["features"] == "features/x"
    assert "parser-seed9" in steps_of(SEEDED, "steps.parser.seeds=8,9")


WRONG = [
    ("title", "titel", "unknown key 'titel'; did you mean 'title'"),
    ("stage: dataset", "stag: dataset", "step 1 (clips): unknown key 'stag'; did you mean 'stage'"),
    ("stage: pseudolabel", "stage: psuedolabel", "step 4 (labels): no stage 'psuedolabel'; did you mean 'pseudolabel'"),
    ("bootstrap", "boostrap", "step 'thresholds': calibrate has no parameter 'boostrap'; did you mean 'bootstrap'"),
    ("bootstrap: 20", "bootstrap: many", "step 'thresholds': calibrate: bootstrap = 'many': Input should be a valid"),
    ("thresholds: thresholds", "threshold: thresholds", "reads no 'threshold'; did you mean 'thresholds'"),
    ("thresholds: thresholds", "thresholds: treshold", "'treshold' is no earlier step and not kind/name of the store"),
    ("thresholds: thresholds", "thresholds: features", "'features' is of kind features; wanted thresholds"),
    ("predictions: labels, ", "", "step 'scores': evaluate needs the input predictions"),
    ("  extract:", "  extrakt:", "defaults: no stage 'extrakt'; did you mean 'extract'"),
    ("visual-teacher", "visual-teachr", "no parameter 'visual_teachr'; did you mean 'visual_teacher'"),
    ("id: features,", "id: clips,", "two steps have this id"),
    ("id: labels", "id: my labels", "should be letters, digits and dashes"),
    ("stage: evaluate,", "stage: evaluate, name: [1],", "name: Input should be a valid string"),
    ("stage: evaluate,", "stage: evaluate, seeds: [1],", "evaluate has no seeds"),
    ("stage: evaluate,", "stage: evaluate, recipe: uwav,", "wanted either `stage:` or `recipe:`"),
    ("steps:", "stepps:", "unknown key"),
    ("steps:", "published: []\nsteps:", "has the key 'published' of a recipe"),
    ("title: a run", "title: a run\ntitle: b", "line 2: the key 'title' comes twice"),
    ("title: a run", "title: &x a run", "anchors"),
    ("title: a run", "title: [a", "is not YAML"),
]


@pytest.mark.parametrize(("old", "new", "told"), WRONG, ids=[one[1][:20] for one in WRONG])
def test_what_is_wrong_is_told_with_its_place_and_what_is_likely_meant(old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(ParameterError) as refused:
        plan_run(config_of(GOOD.replace(old, new, 1)))
    assert told in str(refused.value)


def test_a_step_cannot_read_what_comes_later_nor_make_what_another_makes() -> None:
    late = GOOD.replace("features: features", "features: features/late", 1) + (
        "- {id: late, stage: extract, name: late, inputs: {dataset: clips}}\n"
    )
    with pytest.raises(ParameterError, match="'thresholds': features features/late is made by 'late', which must come"):
        plan_run(config_of(late))
    twice = GOOD + "- {id: more, stage: evaluate, inputs: {predictions: labels, dataset: clips}}\n"
    with pytest.raises(ParameterError, match="'more': makes scores/mine-valor, as scores does; give one of the two a"):
        plan_run(config_of(twice))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("calibrate", "not PLACE=VALUE"),
        ("calibrat.mode=x", "no stage and no step 'calibrat'; did you mean 'calibrate'"),
        ("pretrain.epochs=3", "changes nothing: no step runs pretrain"),
        ("steps.label.name=x", "no step 'label'; did you mean 'labels'"),
        ("stor=x", "unknown key 'stor'; did you mean 'store'"),
        ("calibrate.mod=x", "no parameter 'mod'; did you mean 'mode'"),
    ],
)
def test_a_setting_that_fits_nowhere_is_refused(setting: str, told: str) -> None:
    with pytest.raises(ParameterError) as refused:
        plan_run(config_of(GOOD, [setting]))
    assert told in str(refused.value)


@pytest.mark.parametrize("text", [GOOD, SEEDED, WITH_RECIPE])
def test_the_schema_takes_what_the_reader_takes(text: str) -> None:
    schema = run_schema()
    Draft202012Validator.check_schema(schema)
    assert list(Draft202012Validator(schema).iter_errors(table_of(text.encode(), ".yaml", "x"))) == []


@pytest.mark.parametrize(
    "place", [place for place, one in enumerate(WRONG) if one[1] in ("titel", "stag: dataset", "boostrap")]
)
def test_the_schema_refuses_keys_that_are_unknown(place: int) -> None:
    old, new, _ = WRONG[place]
    table = table_of(GOOD.replace(old, new, 1).encode(), ".yaml", "x")
    assert list(Draft202012Validator(run_schema()).iter_errors(table))


def test_the_schema_has_every_stage_with_its_parameters() -> None:
    every = run_schema()["properties"]["steps"]["items"]["anyOf"]
    stages = {one["properties"]["stage"]["const"]: one for one in every if "stage" in one["properties"]}
    assert set(stages) == set(STAGES)
    assert stages["calibrate"]["properties"]["params"]["properties"]["bootstrap"]["default"] == 0


plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
words = st.sampled_from(["no", "on", "~", "null", "1e3", "0x1f", "1_000", "1:30", "2026-01-01", ".5", "+1", "", "yes"])


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5),
        plain | words | st.lists(plain | words, max_size=3),
    )
)
def test_what_is_written_as_yaml_is_read_back_as_it_was(table: dict[str, Any]) -> None:
    assert table_of(dumped(table).encode(), ".yaml", "x") == table


def test_yaml_is_read_as_its_version_1_2_has_it() -> None:
    text = b"a: no\nb: 010\nc: 1e-3\nd: 1:30\ne: 2026-01-01\nf: TRUE\ng:\nh: .inf\n"
    assert table_of(text, ".yaml", "x") == {
        "a": "no", "b": 10, "c": 0.001, "d": "1:30", "e": "2026-01-01", "f": True, "g": None, "h": float("inf"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["!!python/object/apply:os.system [ls]", "[" * 20_000, "a: *b", "\x00", "- 1", "1: 2", ""]
)
def test_no_file_does_more_than_be_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ParameterError, match=r"run\.yaml"):
        read_config(str(tmp_path / "run.yaml"))


def test_toml_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[[steps]]\nid = "clips"\nstage = "dataset"\nparams = { source = "x.csv" }\n')
    (one,) = plan_run(read_config(str(tmp_path / "run.toml")))
    assert (one.id, str(one.step.reference)) == ("clips", "dataset/x")


def test_config_show_prints_a_file_that_can_be_run_and_the_same_as_json(
    avvp: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(WITH_RECIPE)
    shown = avvp("config", "show", path, "--set", "pretrain.epochs=4", "--store", "there")
    document = avvp("config", "show", path, "--set", "pretrain.epochs=4", "--store", "there", "--json").document
    assert table_of(shown.out.encode(), ".yaml", "x") == document
    assert document["store"] == "there"
    assert document["steps"][1]["params"]["epochs"] == 4
    assert document["steps"][-1]["inputs"]["predictions"] == "uwav-labels"
    assert avvp("config", "show", path, "--full", "--json").document["steps"][1]["params"]["warmup"] is not None


def test_config_schema_is_printed_as_json(avvp: Callable[..., Any]) -> None:
    assert json.loads(avvp("config", "schema").out) == avvp("config", "schema", "--json").document == run_schema()
