"""Settled parameters that are remembered are those that settling gives, and are forgotten when anything changes."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.pipeline import settling
from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.settling import settled
from avvp_pipe.stages.stage import ParameterError, make_params
from avvp_pipe.store import Store

TRAIN = STAGES["train-parser"]


@pytest.fixture
def inputs(finished_demo: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("AVVP_PIPE_CACHE", str(tmp_path / "cache"))
    store = Store(finished_demo.store)
    return {"dataset": store.get("dataset/target"), "features": store.get("features/target"),
            "labels": store.get("labels/uwav")}  # fmt: skip


def counting(calls: list[Any]) -> Any:
    def settle(params: Any, inputs: Any) -> Any:
        calls.append(params)
        return TRAIN.settle(params, inputs)

    return dataclasses.replace(TRAIN, settle=settle)


def test_the_second_time_nothing_is_settled_and_the_same_comes_out_also_in_another_process(inputs: Any) -> None:
    calls: list[Any] = []
    stage, given = counting(calls), make_params(TRAIN, {"parser": "ear", "widths": "features", "epochs": 3})
    first = settled(stage, given, inputs)
    assert first == TRAIN.settle(given, inputs) == settled(stage, given, inputs)
    settling._Memory._open.clear()  # as another process finds it
    assert settled(stage, given, inputs) == first
    assert len(calls) == 1


@pytest.mark.parametrize("changed", ["parameter", "input", "code", "version"])
def test_it_is_settled_anew_when_anything_changes(
    inputs: Any, finished_demo: Any, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    calls: list[Any] = []
    stage, given = counting(calls), make_params(TRAIN, {})
    settled(stage, given, inputs)
    if changed == "parameter":
        given = make_params(TRAIN, {"epochs": 7})
    elif changed == "input":
        inputs = {**inputs, "labels": Store(finished_demo.store).get("labels/valor")}
    elif changed == "code":
        monkeypatch.setattr(settling, "_code", lambda: [("x.py", 1, 2)])
    else:
        stage = dataclasses.replace(stage, version=stage.version + 1)
    settled(stage, given, inputs)
    assert len(calls) == 2


def test_what_the_machine_decides_and_what_is_wrong_is_never_remembered(inputs: Any) -> None:
    calls: list[Any] = []
    stage = counting(calls)
    for _ in range(2):
        settled(stage, make_params(TRAIN, {"precision": "auto"}), inputs)
        with pytest.raises(ParameterError):
            settled(stage, make_params(TRAIN, {"parser": "coleaf", "precision": "bf16"}), inputs)
        with pytest.raises(ParameterError):
            settled(stage, make_params(TRAIN, {"video_loss": "bce", "parser": "coleaf"}), inputs)
    assert len(calls) == 6


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}'])
def test_a_damaged_memory_is_begun_anew(inputs: Any, tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "settled.json").write_text(text)
    calls: list[Any] = []
    stage = counting(calls)
    for _ in range(2):
        assert settled(stage, make_params(TRAIN, {}), inputs).epochs == 80
    assert len(calls) == 1
