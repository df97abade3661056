"""Labels leave as tables that LLP's reader takes back and as tasks that Label Studio imports."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.llp import CLASSES, DENSE_FILES, FULL_FILE, SPLIT_FILES, read_llp
from avvp_pipe.store import StoreError, load_labels
from avvp_pipe.store.layouts.events import Run, runs
from avvp_pipe.store.layouts.label_studio import labelling_config, regions
from avvp_pipe.store.layouts.llp_csv import llp_table

GRIDS = arrays(bool, st.tuples(st.integers(0, 12), st.integers(0, 4)))


def slow_runs(grid: NDArray[Any]) -> list[Run]:
    """Every run of a class, second by second."""
    found = []
    for column in range(grid.shape[1]):
        onset = None
        for second in range(grid.shape[0] + 1):
            on = second < grid.shape[0] and grid[second, column]
            if on and onset is None:
                onset = second
            if not on and onset is not None:
                found.append(Run(column, onset, second))
                onset = None
    return found


@given(GRIDS)
def test_events_are_the_runs_that_a_loop_finds_and_give_the_labels_back(grid: NDArray[Any]) -> None:
    found = runs(grid)
    assert list(found) == slow_runs(grid)
    back = np.zeros_like(grid)
    for run in found:
        back[run.onset : run.offset, run.column] = True
    np.testing.assert_array_equal(back, grid)


def write_llp(folder: Path, ids: dict[str, list[str]], audio: str, visual: str) -> None:
    """LLP's six files: weak labels of a few clips, and the two dense tables."""
    folder.mkdir(parents=True)
    rows = {split: "".join(f"{name}\t{CLASSES[0]}\n" for name in names) for split, names in ids.items()}
    for split, file in SPLIT_FILES.items():
        (folder / file).write_text("filename\tevent_labels\n" + rows[split])
    (folder / FULL_FILE).write_text("filename\tevent_labels\n" + "".join(rows.values()))
    (folder / DENSE_FILES["audio"]).write_text(audio)
    (folder / DENSE_FILES["visual"]).write_text(visual)


@given(heard=arrays(bool, (2, 10, 25)), seen=arrays(bool, (2, 10, 25)))
def test_llps_reader_takes_the_tables_back_as_the_same_labels(
    tmp_path_factory: pytest.TempPathFactory, heard: NDArray[Any], seen: NDArray[Any]
) -> None:
    folder = tmp_path_factory.mktemp("llp") / "data"
    ids = {"train": [], "val": ["-aaaaaaaaaa_0_10"], "test": ["bbbbbbbbbbb_8.5_18.5"]}
    names = ids["val"] + ids["test"]
    write_llp(folder, ids, llp_table(names, CLASSES, list(heard)), llp_table(names, CLASSES, list(seen)))
    dataset = read_llp(folder)
    np.testing.assert_array_equal(dataset.audio, heard)
    np.testing.assert_array_equal(dataset.visual, seen)
    shutil.rmtree(folder)


@pytest.mark.real_data
def test_llps_own_dense_labels_survive_the_tables(real_data: Path, tmp_path: Path) -> None:
    dataset = read_llp(real_data / "llp")
    shutil.copytree(real_data / "llp", tmp_path / "llp", ignore=shutil.ignore_patterns("*.json"))
    for modality, file in DENSE_FILES.items():
        table = llp_table(dataset.video_ids, dataset.classes, list(getattr(dataset, modality)))
        (tmp_path / "llp" / file).unlink()
        (tmp_path / "llp" / file).write_text(table)
    again = read_llp(tmp_path / "llp")
    np.testing.assert_array_equal(again.audio, dataset.audio)
    np.testing.assert_array_equal(again.visual, dataset.visual)


def test_a_name_that_a_table_cannot_hold_is_refused() -> None:
    with pytest.raises(StoreError, match="cannot stand in a table"):
        llp_table(["a\tb"], ["Dog"], [np.ones((2, 1), bool)])


@pytest.fixture(scope="module")
def exported(finished_demo: Any, avvp: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`exported(layout, reference)` exports from the demo once and gives the folder."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(layout: str, reference: str = "labels/uwav", *more: str) -> Path:
        out = folder / f"{layout}-{reference.replace('/', '-')}"
        if out not in made:
            ran = avvp("export", reference, "--layout", layout, "--out", out, "--store", finished_demo.store, *more)
            assert ran.code == 0, ran.err
            made[out] = ran
        return out

    return export


def test_tables_of_the_demos_labels_hold_its_events(finished_demo: Any, exported: Any) -> None:
    labels = load_labels("uwav", store=finished_demo.store)
    for modality, file in DENSE_FILES.items():
        header, *lines = (exported("llp-csv") / file).read_text().splitlines()
        assert header == "filename\tonset\toffset\tevent_labels"
        hard = np.zeros_like(labels.audio_hard)
        for line in lines:
            name, onset, offset, label = line.split("\t")
            hard[labels.row(name), int(onset) : int(offset), labels.classes.index(label)] = True
        np.testing.assert_array_equal(hard, getattr(labels, f"{modality}_hard"))


def test_tasks_hold_every_event_once_with_seconds_scores_and_ids_of_their_own(
    finished_demo: Any, exported: Any
) -> None:
    labels = load_labels("uwav", store=finished_demo.store)
    tasks = json.loads((exported("label-studio") / "tasks.json").read_text())
    assert [task["data"]["video_id"] for task in tasks] == list(labels.video_ids)
    assert tasks[0]["data"]["video"] == f"/data/local-files/?d={labels.video_ids[0]}.mp4"
    found = {"heard": np.zeros_like(labels.audio_hard), "seen": np.zeros_like(labels.visual_hard)}
    ids = []
    for row, task in enumerate(tasks):
        (prediction,) = task["predictions"]
        assert prediction["model_version"] == str(labels.artifact.reference)
        scores = []
        for region in prediction["result"]:
            ids.append(region["id"])
            assert (region["to_name"], region["type"], region["original_length"]) == ("audio", "labels", 10)
            start, end = region["value"]["start"], region["value"]["end"]
            column = labels.classes.index(*region["value"]["labels"])
            soft = labels.audio_soft if region["from_name"] == "heard" else labels.visual_soft
            assert region["score"] == pytest.approx(float(np.mean(soft[row, start:end, column])), abs=1e-4)
            found[region["from_name"]][row, start:end, column] = True
            scores.append(region["score"])
        assert prediction.get("score") == (pytest.approx(np.mean(scores), abs=1e-4) if scores else None)
    assert len(set(ids)) == len(ids) > 0
    np.testing.assert_array_equal(found["heard"], labels.audio_hard)
    np.testing.assert_array_equal(found["seen"], labels.visual_hard)


def test_the_labelling_interface_has_the_controls_and_classes_that_the_tasks_name(exported: Any) -> None:
    view = ET.fromstring((exported("label-studio") / "labeling-config.xml").read_text())
    controls = {one.get("name"): [label.get("value") for label in one] for one in view.findall("Labels")}
    tasks = json.loads((exported("label-studio") / "tasks.json").read_text())
    for region in (region for task in tasks for region in task["predictions"][0]["result"]):
        assert set(region["value"]["labels"]) <= set(controls[region["from_name"]])
    assert [one.get("name") for one in view.findall("Audio")] == ["audio"]
    assert {one.get("toName") for one in view.findall("Labels")} == {"audio"}
    assert "video" in tasks[0]["data"]


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4, unique=True))
def test_class_names_of_any_letters_make_a_readable_interface(classes: list[str]) -> None:
    legal = [name for name in classes if name.isprintable()]
    values = [label.get("value") for label in ET.fromstring(labelling_config(legal)).iter("Label")]
    assert values == legal * 2


def test_labels_without_soft_ones_have_no_score() -> None:
    grid = np.array([[1, 0], [1, 1]], bool)
    assert all("score" not in region for region in regions(grid, None, ["a", "b"], "heard"))
    assert regions(grid, np.array([[0.5, 0], [1, 0.2]]), ["a", "b"], "heard")[0]["score"] == 0.75


def test_a_parsers_predictions_are_exported_like_labels(exported: Any) -> None:
    assert json.loads((exported("label-studio", "parser/hard") / "tasks.json").read_text())


def test_the_address_of_videos_can_be_chosen(exported: Any) -> None:
    out = exported("label-studio", "labels/valor", "--url", "https://example.org/{youtube}/{id}.mp4")
    video = json.loads((out / "tasks.json").read_text())[0]["data"]["video"]
    assert video.startswith("https://example.org/demo-tr0000/demo-tr0000_")
