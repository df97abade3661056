"""The UnAV-100 reader: a file against a slow reference, a stranger's faults, and the real file's counts."""

import json
import math
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avvp_pipe.stages.datasets import Dataset, DatasetError, heard_and_seen, read_unav
from avvp_pipe.stages.datasets.unav import CLASSES
from avvp_pipe.stages.rows import JOINT, SEPARATE
from avvp_pipe.store import Store

SAILING = CLASSES.index("sailing")


def event(start: float, end: float, label: str = "sailing", **other: Any) -> dict[str, Any]:
    return {"segment": [start, end], "label": label, "label_id": CLASSES.index(label)} | other


def video(duration: float, *events: Any, subset: str = "train") -> dict[str, Any]:
    return {"duration": duration, "annotations": list(events), "subset": subset}


def write(folder: Path, document: Any) -> Path:
    path = folder / "unav100_annotations.json"
    text = document if isinstance(document, str) else json.dumps({"version": "unav100", "database": document})
    path.write_text(text, encoding="utf-8")
    return path


def counts(dataset: Dataset) -> dict[str, int]:
    return {finding.code: finding.count for finding in dataset.report}


def test_seconds_that_an_event_touches_are_its_own_and_a_video_is_as_long_as_its_duration_rounded_up(
    tmp_path: Path,
) -> None:
    path = write(tmp_path, {"72f67ednp7w": video(4.2, event(1.9, 3)), "8WSesSOfBrE": video(6, event(2, 2.1))})
    dataset = read_unav(path)
    assert dataset.lengths.tolist() == [5, 6]
    assert dataset.audio_visual.shape == (2, 6, 100)
    assert np.flatnonzero(dataset.audio_visual[0, :, SAILING]).tolist() == [1, 2]
    assert np.flatnonzero(dataset.audio_visual[1, :, SAILING]).tolist() == [2]


def test_events_are_known_only_jointly_in_every_split_and_weak_labels_are_their_classes(tmp_path: Path) -> None:
    names = ("train", "validation", "test")
    database = {f"abcdefghij{index}": video(3, event(0, 3), subset=name) for index, name in enumerate(names)}
    dataset = read_unav(write(tmp_path, database))
    assert dataset.splits == ("train", "val", "test")
    assert dataset.dense.tolist() == [JOINT] * 3
    assert not dataset.audio.any()
    assert not dataset.visual.any()
    assert dataset.weak.nonzero()[1].tolist() == [SAILING] * 3


def test_asked_to_each_modality_has_the_joint_labels_and_clips_labelled_separately_keep_theirs(tmp_path: Path) -> None:
    joint = read_unav(write(tmp_path, {"72f67ednp7w": video(4, event(1, 3))}))
    each = heard_and_seen(joint)
    assert each.dense.tolist() == [SEPARATE]
    for grid in (each.audio, each.visual, each.audio_visual):
        np.testing.assert_array_equal(grid, joint.audio_visual)
    assert each.audio.sum() == 2
    again = heard_and_seen(each)
    np.testing.assert_array_equal(again.audio, each.audio)


def test_videos_are_looked_for_under_their_ids(tmp_path: Path) -> None:
    path = write(tmp_path, {"-Rjmgv0O_p0": video(3)})
    assert read_unav(path).paths == ("-Rjmgv0O_p0.mp4",)
    assert read_unav(tmp_path, videos=tmp_path / "videos").paths == (str(tmp_path / "videos" / "-Rjmgv0O_p0.mp4"),)


def test_what_is_odd_is_reported_and_none_of_it_is_changed(tmp_path: Path) -> None:
    events = (event(0, 2), event(1.5, 3), event(3, 3.5), event(0, 1, "raining"))
    dataset = read_unav(write(tmp_path, {"72f67ednp7w": video(4, *events), "8WSesSOfBrE": video(2.5, subset="test")}))
    assert counts(dataset) == {
        "no-events": 1,
        "overlapping-events": 1,
        "touching-events": 1,
        "short-event": 1,
        "several-classes": 1,
        "train-events": 4,
    }
    examples = {finding.code: finding.examples for finding in dataset.report}
    assert examples["overlapping-events"] == ("72f67ednp7w 0.0,2.0 sailing and 1.5,3.0",)
    assert np.flatnonzero(dataset.audio_visual[0, :, SAILING]).tolist() == [0, 1, 2, 3]


ONE = "72f67ednp7w"
FAULTS: dict[str, tuple[Any, str]] = {
    "not JSON": ("{", "is no JSON that can be read"),
    "a deep nest": ("[" * 200_000, "is no JSON that can be read"),
    "not text": ('{"database": {"\\ud800": {}}}', "is no JSON that can be read"),
    "an id twice": (f'{{"database": {{"{ONE}": {{}}, "{ONE}": {{}}}}}}', f"'{ONE}' stands twice in one object"),
    "a list": ("[]", "no videos in its member `database`"),
    "no database": ('{"version": "unav100"}', "no videos in its member `database`"),
    "no videos": ({}, "no videos in its member `database`"),
    "a list of videos": ([1], "no videos in its member `database`"),
    "another kind of id": ({"../../escape": video(3)}, "'../../escape': ids of UnAV-100 are YouTube ids"),
    "a path as long as an id": ({"../../../ab": video(3)}, "'../../../ab': ids of UnAV-100 are YouTube ids"),
    "an id that ends in a line break": ({"aaaaaaaaaa\n": video(3)}, "ids of UnAV-100 are YouTube ids"),
    "an id with a suffix": ({f"{ONE}_30_40": video(3)}, "ids of UnAV-100 are YouTube ids"),
    "a short id": ({"abc": video(3)}, "ids of UnAV-100 are YouTube ids"),
    "no record": ({ONE: None}, f"video '{ONE}': wanted an object with 'duration', but found None"),
    "no subset": ({ONE: {"duration": 3, "annotations": []}}, "wanted an object with 'subset'"),
    "no annotations": ({ONE: {"duration": 3, "subset": "train"}}, "wanted an object with 'annotations'"),
    "another subset": ({ONE: video(3, subset="val")}, "subset should be one of train, validation, test, but is 'val'"),
    "a subset that is a list": ({ONE: {**video(3), "subset": ["train"]}}, "subset should be one of"),
    "a duration of nothing": ({ONE: video(0)}, "duration should be above 0 and at most 600 s, but is 0"),
    "a long duration": ({ONE: video(1_000_000)}, "duration should be above 0 and at most 600 s, but is 1000000"),
    "a very long duration": ({ONE: video(10**4000)}, "duration should be above 0 and at most 600 s"),
    "a negative duration": ({ONE: video(-3)}, "duration should be above 0"),
    "a duration that is no number": ({ONE: video(math.nan)}, "duration should be above 0 .* but is nan"),
    "a duration without end": ({ONE: video(math.inf)}, "duration should be above 0 .* but is inf"),
    "a duration in words": ({ONE: {**video(3), "duration": "3"}}, "duration should be above 0 .* but is '3'"),
    "a duration that is true": ({ONE: {**video(3), "duration": True}}, "duration should be above 0"),
    "annotations that are none": ({ONE: {**video(3), "annotations": {}}}, "annotations should be a list of events"),
    "an event that is none": ({ONE: video(3, 7)}, f"'{ONE}', event 0: wanted an object with 'segment', but found 7"),
    "no label": ({ONE: video(3, {"segment": [0, 1], "label_id": 0})}, "wanted an object with 'label'"),
    "no label id": ({ONE: video(3, {"segment": [0, 1], "label": "sailing"})}, "wanted an object with 'label_id'"),
    "a negative start": ({ONE: video(3, event(-1, 2))}, r"segment \[-1, 2\] should begin at 0 or later"),
    "a reversed event": ({ONE: video(3, event(0, 1), event(2, 1))}, r"event 1: segment \[2, 1\] .* after it begins"),
    "an empty event": ({ONE: video(3, event(2, 2))}, "after it begins"),
    "an event beyond the end": ({ONE: video(3.5, event(2, 3.6))}, "within the video's 3.5 s; correct it, or leave"),
    "a start that is no number": ({ONE: video(3, event(math.nan, 2))}, r"segment \[nan, 2\] should"),
    "an end that is no number": ({ONE: video(3, event(0, math.nan))}, r"segment \[0, nan\] should"),
    "a far end": ({ONE: video(3, event(0, 10**4000))}, "within the video's 3 s"),
    "one time": (
        {ONE: video(3, event(0, 1, segment=[1]))},
        r"segment should be \[start, end\] in seconds, but is \[1\]",
    ),
    "times in words": ({ONE: video(3, event(0, 1, segment=["0", "1"]))}, r"segment should be \[start, end\]"),
    "a near label": ({ONE: video(3, event(0, 1, label_id=1) | {"label": "sailin"})}, "did you mean 'sailing'"),
    "a far label": ({ONE: video(3, event(0, 1) | {"label": "Xyz"})}, "unknown label 'Xyz'; UnAV-100 has man speaking"),
    "a label that is none": ({ONE: video(3, event(0, 1) | {"label": 5})}, "unknown label 5"),
    "another label's id": (
        {ONE: video(3, event(0, 1, label_id=54))},
        "label 'sailing' has label_id 54, which is 'people running'; in the official order it is 55",
    ),
    "an id below the first": ({ONE: video(3, event(0, 1, label_id=-45))}, "'sailing' has label_id -45; in the"),
    "an id beyond the last": ({ONE: video(3, event(0, 1, label_id=155))}, "'sailing' has label_id 155; in the"),
    "an id that is no whole number": ({ONE: video(3, event(0, 1, label_id=55.0))}, "has label_id 55.0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_an_error_that_names_the_file_the_place_and_what_was_wanted(tmp_path: Path, fault: str) -> None:
    document, reason = FAULTS[fault]
    path = write(tmp_path, document)
    with pytest.raises(DatasetError, match=reason) as caught:
        read_unav(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    with path.open("wb") as file:
        file.truncate(33 * 2**20)
    with pytest.raises(DatasetError, match="is larger than 33554432 bytes"):
        read_unav(path)


def test_a_file_that_is_not_there_is_named_with_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"unav100_annotations.json is not there; .* ttgeng233/UnAV"):
        read_unav(tmp_path)


times = st.floats(0, 1, allow_nan=False)
made_events = st.lists(st.tuples(times, times, st.integers(0, 99)), max_size=6)
made_ids = st.text(string.ascii_letters + string.digits + "-_", min_size=11, max_size=11)
made_videos = st.tuples(
    st.one_of(st.integers(1, 12), st.floats(0.01, 12)), made_events, st.sampled_from(["train", "validation", "test"])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(made_ids, made_videos, min_size=1, max_size=5))
def test_any_file_of_the_form_reads_to_the_arrays_of_a_reader_written_second_by_second(
    tmp_path: Path, made: dict[str, tuple[float, list[tuple[float, float, int]], str]]
) -> None:
    database = {}
    for name, (duration, drawn, subset) in made.items():
        ordered = [(min(a, b) * duration, min(max(a, b) * duration, duration), label) for a, b, label in drawn]
        events = [event(a, b, CLASSES[label]) for a, b, label in ordered if a < b]
        database[name] = video(duration, *events, subset=subset)
    dataset = read_unav(write(tmp_path, database))
    assert dataset.video_ids == tuple(database)
    for row, record in enumerate(database.values()):
        seconds = math.ceil(record["duration"])
        assert dataset.lengths[row] == seconds
        assert dataset.splits[row] == {"train": "train", "validation": "val", "test": "test"}[record["subset"]]
        for label, name in enumerate(CLASSES):
            segments = [item["segment"] for item in record["annotations"] if item["label"] == name]
            assert dataset.weak[row, label] == bool(segments)
            for second in range(dataset.audio_visual.shape[1]):
                # Second t is [t, t + 1); an event that ends with it has touched it, one that ends as it begins has not.
                touched = any(start < second + 1 and end > second for start, end in segments)
                assert dataset.audio_visual[row, second, label] == touched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--reader", "unav", "--classes", "classes.txt"),
            "--classes is for a manifest; the classes of unav are fixed",
        ),
        (("--reader", "unav", "--class-order", "uwav"), "--class-order is for AVE; unav has one order"),
        (("--reader", "manifest", "--videos", "videos"), "a manifest's paths start from its folder"),
        (("--reader", "llp", "--joint", "each"), "LLP labels audio and vision separately"),
    ],
)
def test_an_option_that_the_reader_has_no_use_for_is_refused(
    tmp_path: Path, avvp: Callable[..., Any], options: tuple[str, ...], message: str
) -> None:
    path = write(tmp_path, {ONE: video(3, event(0, 1))})
    ran = avvp("dataset", "--source", path, *options, "--store", tmp_path / "store")
    assert ran.code == 2
    assert message in ran.err
    assert not list(tmp_path.rglob("zarr.json"))


def test_the_command_stores_what_the_reader_reads_and_joint_labels_either_way(
    tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    write(tmp_path, {ONE: video(3, event(0, 2))})
    store = Store(tmp_path / "store")
    where = ("--reader", "unav", "--source", tmp_path, "--name", "mine", "--store", tmp_path / "store", "--quiet")
    assert avvp("dataset", *where).code == 0
    kept = store.get("dataset/mine")
    assert kept.array("dense").tolist() == [JOINT]
    assert not kept.array("audio").any()
    assert avvp("dataset", *where, "--joint", "each").code == 0
    each = store.get("dataset/mine")
    assert each.key != kept.key
    assert each.array("dense").tolist() == [SEPARATE]
    for name in ("audio", "visual", "audio_visual"):
        np.testing.assert_array_equal(each.array(name), kept.array("audio_visual"))
    assert each.attrs["classes"] == list(CLASSES)
    assert {*each.provenance["sources"]} == {"unav100_annotations.json"}


@pytest.fixture(scope="module")
def real(real_data: Path) -> Dataset:
    return read_unav(real_data / "unav")


@pytest.mark.real_data
def test_the_real_file_has_the_documented_videos_segments_and_positives(real: Dataset) -> None:
    splits = np.array(real.splits)
    of = {split: splits == split for split in ("train", "val", "test")}
    assert [int(rows.sum()) for rows in of.values()] == [6489, 2134, 2167]
    assert [int(real.lengths[rows].sum()) for rows in of.values()] == [274900, 90051, 91685]
    assert (int(real.lengths.min()), int(real.lengths.max())) == (10, 60)
    assert real.audio_visual.shape == (10790, 60, 100)
    train = of["train"]
    segments = real.lengths[train].sum()
    assert round(float(real.audio_visual[train].sum() / segments), 3) == 0.963
    assert round(float((real.weak[train].sum(axis=1) * real.lengths[train]).sum() / segments), 3) == 1.619
    assert int((real.weak.sum(axis=1) > 1).sum()) == 4366
    assert real.weak.any(axis=1).all()
    assert (real.dense == JOINT).all()
    beyond = np.arange(60)[None, :] >= real.lengths[:, None]
    assert not real.audio_visual[beyond].any()


@pytest.mark.real_data
def test_the_report_on_the_real_file_has_every_event_and_the_one_overlap(real: Dataset) -> None:
    assert counts(real) == {
        "overlapping-events": 1,
        "short-event": 1265,
        "several-classes": 4366,
        "train-events": 18123,
        "val-events": 6036,
        "test-events": 5900,
    }
    assert 18123 + 6036 + 5900 == 30059


@pytest.mark.real_data
def test_the_classes_are_those_of_the_real_file_in_the_order_of_its_label_ids(real_data: Path) -> None:
    document = json.loads((real_data / "unav" / "unav100_annotations.json").read_text())
    pairs = {(item["label_id"], item["label"]) for one in document["database"].values() for item in one["annotations"]}
    assert tuple(name for _, name in sorted(pairs)) == CLASSES
    assert len(CLASSES) == 100
