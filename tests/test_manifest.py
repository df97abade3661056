"""Manifests of one's own: what is read, and what is refused with which words."""

import json
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.stages.datasets import (
    Clip,
    DatasetError,
    Event,
    build_dataset,
    read_classes,
    read_manifest,
    write_manifest,
)
from avvp_pipe.stages.rows import JOINT, NONE, SEPARATE

HEADER = "id,path,split,labels,seconds,audio_events,visual_events"


def csv_file(folder: Path, *lines: str) -> Path:
    path = folder / "clips.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_csv_manifest_reads_labels_events_and_lengths(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        HEADER,
        'a,a.mp4,train,"Male speech, man speaking;Dog",,,',
        "b,b.mp4,val,Dog,12,Dog@2-4.5,",
    )
    dataset = read_manifest(path)
    assert dataset.classes == ("Dog", "Male speech, man speaking")
    assert dataset.weak.tolist() == [[True, True], [True, False]]
    assert dataset.lengths.tolist() == [10, 12]
    assert dataset.dense.tolist() == [NONE, SEPARATE]
    assert np.flatnonzero(dataset.audio[1, :, 0]).tolist() == [2, 3, 4]
    assert not dataset.visual.any()


def test_events_heard_and_seen_at_once_are_kept_apart(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_manifest(path, [Clip("a", "train", "a.mp4", ("Dog",), 5, events=(Event("Dog", 1, 3),))])
    dataset = read_manifest(path)
    assert dataset.dense.tolist() == [JOINT]
    assert np.flatnonzero(dataset.audio_visual[0, :, 0]).tolist() == [1, 2]
    assert not dataset.audio.any()


def test_weak_labels_are_taken_from_the_events_where_none_are_given(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    path.write_text(json.dumps({"id": "a", "path": "a.mp4", "split": "val", "events": [["Dog", 0, 1]]}) + "\n")
    assert read_manifest(path).weak.tolist() == [[True]]


def test_an_empty_list_of_labels_counts_as_none_given_where_there_are_events(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_manifest(path, [Clip("a", "val", "a.mp4", (), 5, events=(Event("Dog", 1, 3),))])
    dataset = read_manifest(path)
    assert dataset.weak.tolist() == [[True]]
    assert dataset.report == ()


def test_the_mark_that_spreadsheets_put_first_and_capital_endings_are_read(tmp_path: Path) -> None:
    path = tmp_path / "CLIPS.CSV"
    path.write_bytes(b"\xef\xbb\xbfid,path,split,labels\r\na,a.mp4,val,Dog\r\n")
    assert read_manifest(path).video_ids == ("a",)


def test_an_event_outside_the_weak_labels_is_reported_and_kept(tmp_path: Path) -> None:
    path = csv_file(tmp_path, HEADER, "b,b.mp4,val,Dog,10,Dog@0-2;Cat@1-2,")
    dataset = read_manifest(path)
    assert [(finding.code, finding.examples) for finding in dataset.report] == [("dense-class-not-weak", ("b",))]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,b.mp4,train,Dog,,,", r"line 3: id 'a' stands in line 2 too"),
        ("b,b.mp4,dev,Dog,,,", r"line 3: split should be one of train, val, test, but is 'dev'"),
        ("b,b.mp4,val,Dgo,,,", r"line 3: unknown class 'Dgo'; did you mean 'Dog'\?"),
        ("b,b.mp4,val,Dog,0,,", r"line 3: seconds should be a whole number from 1 to 3600, but is '0'"),
        ("b,b.mp4,val,Dog,10,Dog@4-2,", r"Dog from 4.0 to 2.0 s does not lie within the clip's 0 to 10 s"),
        ("b,b.mp4,val,Dog,10,Dog@4-20,", r"does not lie within the clip"),
        ("b,b.mp4,val,Dog,10,Dog,", r"wanted class, onset, offset \(CSV: Class@onset-offset\), but found \['Dog'\]"),
        ("b,,val,Dog,10,,", r"path should be text, but is None"),
        (" a ,b.mp4,train,Dog,,,", r"line 3: id 'a' stands in line 2 too"),
        ("b,b.mp4,val,Dog,10,Dog@2-2,", r"Dog from 2.0 to 2.0 s does not lie within the clip"),
        ("b,b.mp4,val,Dog,10,Dog@nan-2,", r"Dog from nan to 2.0 s does not lie within the clip"),
        ("b,b.mp4,val,Dog,10,Dgo@1-2,", r"line 3: unknown class 'Dgo'; did you mean 'Dog'\?"),
        ("b,b.mp4,val," + "D" * 200_000 + ",,,", r"line 3: not CSV \(field larger"),
        ("b,b.mp4", r"line 3: not as many cells as the header has"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_was_wanted(tmp_path: Path, line: str, message: str) -> None:
    path = csv_file(tmp_path, HEADER, "a,a.mp4,train,Dog,,,", line)
    with pytest.raises(DatasetError, match=message):
        read_manifest(path, classes=("Dog", "Cat"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"wanted .csv or .jsonl, not '.txt'"),
        ("a.csv", b"id,path\n", r"line 1: the header lacks split"),
        ("a.csv", b"id,path,split,labels\n", "lists no clips"),
        ("a.csv", b"id,path,split\na,\xff,train\n", "not UTF-8"),
        ("a.jsonl", b"{", "line 1: not JSON"),
        ("a.jsonl", b"[1]", "wanted an object with fields"),
        ("a.jsonl", b'{"id": "a", "path": "a", "split": "val", "label": ["Dog"]}', "unknown field 'label'"),
        ("a.jsonl", b'{"id": "a", "path": "a", "split": "val", "labels": "Dog"}', "labels should be a list"),
        ("a.jsonl", b'{"id": "a", "path": "a", "split": "val", "audio_events": []}', "known together"),
        ("a.csv", b"id,path,split,split\na,a,val,train\n", "line 1: the header has split twice"),
        ("a.jsonl", b"[" * 500_000, r"line 1: not JSON \(maximum recursion"),
        ("a.jsonl", b'{"seconds": ' + b"9" * 5000 + b"}", r"line 1: not JSON \(Exceeds the limit"),
        ("a.jsonl", rb'{"id": "\ud800", "path": "a", "split": "val"}', r"line 1: not JSON .*surrogates"),
        (
            "a.jsonl",
            b'{"id": "a", "path": "a", "split": "val", "events": [["Dog", false, true]]}',
            "wanted class, onset",
        ),
        ("a.jsonl", b'{"id": "a", "path": "a", "split": "val"}', "names no class in any clip"),
        ("a.jsonl", b" " * (2**20 + 1), "more than 1048576 is not read"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        read_manifest(tmp_path / name)


def test_a_missing_manifest_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(tmp_path / "clips.csv")


def test_a_class_list_with_doubles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("Dog\nCat\nDog\n")
    with pytest.raises(DatasetError, match="lists Dog"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize(
    ("clips", "classes", "message"),
    [
        ([Clip("a", "val", "", ("Cat",))], ("Dog",), "clip a has the unknown class 'Cat'"),
        ([Clip("a", "val", "", (), events=(Event("Cat", 0, 1),))], ("Dog",), "clip a has the unknown class 'Cat'"),
        ([Clip("a", "val", "", ())] * 2, ("Dog",), "each video id names one thing, but these occur twice: a"),
        ([Clip("a", "val", "", ())], ("Dog", "Dog"), "each class names one thing, but these occur twice: Dog"),
        ([Clip("a", "dev", "", ())], ("Dog",), "splits should be train, val, test, but are dev too"),
    ],
)
def test_clips_that_make_no_table_are_refused(clips: list[Clip], classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        build_dataset(clips, classes, prompts={})


def test_an_array_of_the_wrong_shape_is_refused() -> None:
    dataset = build_dataset([Clip("a", "val", "", ("Dog",))], ("Dog",), prompts={})
    with pytest.raises(DatasetError, match=r"weak should have shape \(1, 1\), but has \(2, 1\)"):
        replace(dataset, weak=np.zeros((2, 1), bool))
    with pytest.raises(DatasetError, match="paths should name 1 clips, but names 0"):
        replace(dataset, paths=())


def test_a_manifest_that_cannot_be_written_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "clips.jsonl"
    write_manifest(path, [Clip("a", "val", "a.mp4", ("Dog",))])
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        write_manifest(path, [Clip("\ud800", "val", "a.mp4", ("Dog",))])
    assert [file.name for file in tmp_path.iterdir()] == ["clips.jsonl"]
    assert path.read_bytes() == before


def test_json_lines_are_not_written_under_a_name_that_reads_as_csv(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="give it a name that ends in"):
        write_manifest(tmp_path / "clips.csv", [])


NAMES = st.text(string.ascii_letters + " ,_()", min_size=1, max_size=8).filter(lambda name: name == name.strip())
EVENTS = st.lists(st.tuples(NAMES, st.integers(0, 9)), max_size=3)


@given(clips=st.lists(st.tuples(st.sampled_from(["train", "val", "test"]), EVENTS, EVENTS), min_size=1, max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory: pytest.TempPathFactory, clips: list[Any]) -> None:
    path = tmp_path_factory.mktemp("manifest") / "clips.jsonl"
    written = [
        Clip(
            f"clip{number}",
            split,
            "a.mp4",
            ("Dog", *sorted({name for name, _ in heard + seen} - {"Dog"})),
            audio_events=tuple(Event(name, onset, onset + 1) for name, onset in heard),
            visual_events=tuple(Event(name, onset, onset + 1) for name, onset in seen),
        )
        for number, (split, heard, seen) in enumerate(clips)
    ]
    write_manifest(path, written)
    dataset = read_manifest(path)
    assert dataset.video_ids == tuple(clip.video_id for clip in written)
    for row, clip in enumerate(written):
        heard = {(event.label, event.onset) for event in clip.audio_events or ()}
        cells = {(dataset.classes[column], second) for second, column in np.argwhere(dataset.audio[row])}
        assert cells == heard
        assert {dataset.classes[column] for column in np.flatnonzero(dataset.weak[row])} == set(clip.labels)


@given(
    seconds=st.integers(1, 12),
    times=st.lists(st.tuples(st.floats(-3, 15), st.floats(-3, 15)).filter(lambda pair: pair[0] < pair[1]), max_size=4),
)
def test_an_event_covers_every_second_of_its_clip_that_it_touches(
    seconds: int, times: list[tuple[float, float]]
) -> None:
    events = tuple(Event("Dog", onset, offset) for onset, offset in times)
    grid = build_dataset([Clip("a", "val", "", (), seconds, events=events)], ("Dog",), prompts={}).audio_visual
    touched = [any(onset < second + 1 and offset > second for onset, offset in times) for second in range(seconds)]
    assert grid[0, :, 0].tolist() == touched
