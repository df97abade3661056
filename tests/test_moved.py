"""A dataset whose files are said to lie elsewhere looks for them there, and what was made of it stays sound."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.pipeline.status import conditions
from avvp_pipe.stages.clips.videos import video_paths
from avvp_pipe.stages.stage import Silent
from avvp_pipe.store import Artifact, Store
from avvp_pipe.store.verify import verify

UNAV = {"version": "unav100", "database": {"abcdefghijk": {"duration": 3.0, "subset": "train", "annotations": []}}}


def manifest(folder: Path, path: str = "a.mp4") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    events = {"audio_events": [["Dog", 0, 1]], "visual_events": [["Dog", 0, 2]]}
    record = {"id": "a", "path": path, "split": "val", "labels": ["Dog"], "seconds": 2, **events}
    (folder / "clips.jsonl").write_text(json.dumps(record) + "\n")
    return str(folder / "clips.jsonl")


def step_of(source: str, **params: Any) -> Step:
    return Step("dataset", "mine", {"source": source, **params})


def read(store: Store, source: str, **params: Any) -> Outcome:
    return run_step(store, step_of(source, **params), progress=Silent())


def unav(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "unav100_annotations.json").write_text(json.dumps(UNAV))
    return str(folder)


def test_videos_that_are_told_later_are_looked_for_where_they_were_told_to_be(tmp_path: Path) -> None:
    store, source, videos = Store(tmp_path / "store"), unav(tmp_path / "annotations"), tmp_path / "videos"
    first = read(store, source, reader="unav")
    assert video_paths(first.artifact, "") == [Path(source) / "abcdefghijk.mp4"]
    again = read(store, source, reader="unav", videos=str(videos))
    assert (again.state, again.artifact.key) == ("built", first.artifact.key)
    assert again.reasons == (f"the videos lie in {videos}, not in {source}",)
    assert video_paths(again.artifact, "") == [videos / "abcdefghijk.mp4"]
    assert read(store, source, reader="unav", videos=str(videos)).state == "cached"
    assert read(store, source, reader="unav").reasons == (f"the videos lie in {source}, not in {videos}",)


def test_a_manifest_that_moved_with_its_videos_is_looked_for_there(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    read(store, manifest(tmp_path / "here"))
    (tmp_path / "here").rename(tmp_path / "there")
    moved = step_of(str(tmp_path / "there" / "clips.jsonl"))
    (condition,) = conditions(store, [moved])
    assert condition.state == "stale"
    assert condition.reasons == (f"the videos lie in {tmp_path / 'there'}, not in {tmp_path / 'here'}",)
    outcome = run_step(store, moved, progress=Silent())
    assert outcome.reasons == condition.reasons
    assert video_paths(outcome.artifact, "") == [tmp_path / "there" / "a.mp4"]
    assert conditions(store, [moved])[0].state == "cached"


def test_where_a_manifest_of_whole_paths_lies_does_not_matter(tmp_path: Path) -> None:
    store, video = Store(tmp_path / "store"), str(tmp_path / "a.mp4")
    read(store, manifest(tmp_path / "here", video))
    assert read(store, manifest(tmp_path / "there", video)).state == "cached"


def test_what_was_made_of_a_dataset_that_moved_is_neither_stale_nor_unsound(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    here, there = manifest(tmp_path / "here"), manifest(tmp_path / "there")
    read(store, here)
    simulated = Step("simulate", "mine", {}, {"dataset": "dataset/mine"})
    made = run_step(store, simulated, progress=Silent()).artifact
    assert [one.state for one in conditions(store, [step_of(there), simulated])] == ["stale", "cached"]
    read(store, there)
    assert [one.state for one in conditions(store, [step_of(there), simulated])] == ["cached", "cached"]
    assert run_step(store, simulated, progress=Silent()).state == "cached"
    assert verify(made, store).findings == ()


def test_other_labels_under_the_key_of_a_dataset_are_found(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    store = Store(tmp_path)
    dataset = make_artifact(store, "dataset/d", arrays={"paths": ["a.mp4"], "weak": np.array([[True]])}, location="/a")
    labels = make_artifact(store, "scores/s", inputs={"dataset": dataset})

    def again(weak: bool, location: str) -> str:
        store.discard(store.get("dataset/d"))
        arrays = {"paths": [f"{location}/a.mp4"], "weak": np.array([[weak]])}
        assert make_artifact(store, "dataset/d", arrays=arrays, location=location).key == dataset.key
        return " ".join(finding.message for finding in verify(labels, store).findings)

    assert "not the one that was read" not in again(True, "/b")
    assert "not the one that was read" in again(False, "/a")
