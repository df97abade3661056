"""`parse` straight from video files to a table."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.store import Store
from tests.parse_world import SAID, SMALL, table
from tests.small_world import TINY, write_video


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory, avvp: Callable[..., Any]) -> Path:
    """Two videos, and a parser that was trained on what the embedded teachers make of them, decoded beforehand."""
    folder = tmp_path_factory.mktemp("filmed")
    (folder / "videos").mkdir()
    for row, (name, seconds) in enumerate((("one", 2.0), ("two", 1.0))):
        write_video(folder / "videos" / f"{name}.mp4", row, seconds=seconds)
    lines = [
        {"id": name, "path": f"videos/{name}.mp4", "split": "train", "labels": labels, "seconds": seconds}
        for name, labels, seconds in (("one", ["Bell", "Drum"], 2), ("two", ["Drum"], 1))
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ("--name", "own", "--store", folder / "store", "--quiet")
    assert avvp("dataset", "--source", folder / "clips.jsonl", *common).code == 0
    assert avvp("decode", "--dataset", "own", "--frame-rule", "centre", "--workers", "1", *common).code == 0
    ran = avvp("extract", "--dataset", "own", "--media", "own", *TINY, "--stored-as", "float16", *common)
    assert ran.code == 0, ran.err
    small = [word for name, value in SMALL.items() for word in (f"--{name}", value)]
    ran = avvp("train-parser", "--dataset", "own", "--features", "own", "--targets", "weak", *map(str, small), *common)
    assert ran.code == 0, ran.err
    return folder


def from_videos(filmed: Path, avvp: Callable[..., Any], *words: Any) -> Any:
    return avvp(
        "parse", "--parser", "own", *words, "--set", "extract.workers=1", "--store", filmed / "store", "--quiet"
    )


def test_a_folder_of_videos_becomes_a_table_as_the_parsers_own_features_were_made(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = from_videos(filmed, avvp, filmed / "videos", "--csv", tmp_path / "out.csv", "--json")
    assert ran.code == 0, ran.err
    store = Store(filmed / "store")
    own, new = store.get("parser/own"), store.get(ran.document["artifact"])
    assert new.name == "parse-videos"
    assert new.strings("video_ids") == ("one", "two")
    assert new.array("lengths").tolist() == [2, 1]
    for name in SAID:  # the same videos, extracted anew: bit by bit the same features, so nearly the same predictions
        np.testing.assert_allclose(new.array(name), own.array(name), rtol=1e-6, atol=1e-7)
    made_of, trained_on = store.get("features/parse-videos"), store.get("features/own")
    assert made_of.provenance["params"] == trained_on.provenance["params"]
    chosen = {name: made_of.provenance["params"][name] for name in ("stored_as", "frame_rule", "frame_size")}
    assert chosen == {"stored_as": "float16", "frame_rule": "centre", "frame_size": 224}  # not the teacher's 64
    np.testing.assert_array_equal(made_of.array("visual"), trained_on.array("visual"))
    lines = table(tmp_path / "out.csv")
    assert len(lines) == 3 * 2 * 2
    assert [line["video_id"] for line in lines[:: 2 * 2]] == ["one", "one", "two"]
    again = from_videos(filmed, avvp, filmed / "videos", "--csv", tmp_path / "again.csv", "--json").document
    assert [one["state"] for one in again["steps"]] == ["cached"] * 3
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()


def test_a_file_that_is_no_video_fails_alone(filmed: Path, tmp_path: Path, avvp: Callable[..., Any]) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    video = filmed / "videos" / "two.mp4"
    ran = from_videos(filmed, avvp, tmp_path / "text.mp4", video, "--csv", tmp_path / "out.csv", "--json")
    assert ran.code == 1
    assert [(one["video_id"], one["code"]) for one in ran.document["failures"]] == [("text", "not-a-video")]
    assert {line["video_id"] for line in table(tmp_path / "out.csv")} == {"two"}
    said = Store(filmed / "store").get(ran.document["artifact"])
    assert said.array("status").tolist() == [4, 1]


def test_seconds_are_counted_from_the_beginning_when_asked(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    video = filmed / "videos" / "one.mp4"
    ran = from_videos(filmed, avvp, video, "--seconds", "1", "--csv", tmp_path / "out.csv")
    assert ran.code == 0, ran.err
    assert {line["second"] for line in table(tmp_path / "out.csv")} == {"0"}


def test_a_dry_run_says_what_would_be_made_and_makes_nothing(filmed: Path, avvp: Callable[..., Any]) -> None:
    before = {str(one.reference) for one in Store(filmed / "store").artifacts()}
    ran = from_videos(filmed, avvp, filmed / "videos", "--name", "never", "--dry-run", "--json")
    assert ran.code == 0, ran.err
    steps = [(one["stage"], one["artifact"].partition("@")[0]) for one in ran.document["steps"]]
    assert steps == [("dataset", "dataset/never"), ("extract", "features/never"), ("parse", "predictions/never")]
    assert {str(one.reference) for one in Store(filmed / "store").artifacts()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{videos}/nobody.mp4"], "there is no file or folder"),
        (["{empty}"], "holds no files that end in"),
        (["{videos}/one.mp4", "{twin}/one.mp4"], "called by their files' names"),
        (["{videos}", "--features", "own"], "both videos and --features"),
        (["--csv", "out.csv"], "wants videos to parse, or --features"),
        (["--features", "own", "--seconds", "3"], "are for parsing videos"),
        (["{videos}", "--set", "extract.visual-teacher=ViT-B-32"], "not by ViT-B-32"),
        (["{videos}", "--set", "calibrate.method=valor"], "dataset, extract and parse only"),
        (["{videos}", "--parser", "nobody"], "nobody"),
        (["{videos}", "--threshold", "2"], "threshold = 2.0"),
    ],
)
def test_wrong_use_is_told_before_anything_is_extracted(
    filmed: Path, tmp_path: Path, avvp: Callable[..., Any], words: list[str], message: str
) -> None:
    places = {"videos": filmed / "videos", "empty": tmp_path / "empty", "twin": tmp_path / "twin"}
    for place in ("empty", "twin"):
        places[place].mkdir()
    shutil.copy(filmed / "videos" / "one.mp4", places["twin"])
    before = {str(one.reference) for one in Store(filmed / "store").artifacts()}
    ran = from_videos(filmed, avvp, *(word.format(**places) for word in words), "--name", "wrong")
    assert ran.code == 2
    assert message in ran.err
    after = {str(one.reference) for one in Store(filmed / "store").artifacts()} - before
    assert {one for one in after if not one.startswith("dataset/")} == set()


@pytest.mark.real_data
def test_the_real_clip_goes_from_mp4_to_csv_in_one_command(
    filmed: Path, real_data: Path, tmp_path: Path, avvp: Callable[..., Any]
) -> None:
    ran = from_videos(filmed, avvp, real_data / "llp" / "BjCEufrlXm4.mp4", "--csv", tmp_path / "real.csv", "--json")
    assert ran.code == 0, ran.err
    lines = table(tmp_path / "real.csv")
    assert len(lines) == 10 * 2 * 2
    assert {line["video_id"] for line in lines} == {"BjCEufrlXm4"}
    assert {line["class"] for line in lines} == {"Bell", "Drum"}
    assert all(0 < float(line["probability"]) < 1 for line in lines)
    assert ran.document["lines"] == len(lines)
