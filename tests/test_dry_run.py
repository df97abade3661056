"""A dry run of a long step: what there is to do, how much room and time it takes, and nothing is left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.cli.show_plan import human_seconds
from avvp_pipe.store import Store
from tests.small_world import TINY, small_world

CLIPS = 20
HERE = ("--workers", "0", "--quiet")
EXTRACT = ("extract", "--dataset", "mine", *TINY)
DECODE = ("decode", "--dataset", "mine", "--frame-size", "64", "--sample-rate", "16000")
ONCE: dict[str, set[str]] = {"decode": set(), "extract": {"load", "texts"}}
EACH = {"decode": {"decode"}, "extract": {"decode", "vision", "sound", "other"}}

Command = Callable[..., Any]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, avvp: Command) -> Path:
    """Twenty clips and their dataset; tests take a copy."""
    folder = tmp_path_factory.mktemp("videos")
    manifest = small_world(folder, CLIPS)
    assert avvp("dataset", "--source", manifest, "--name", "mine", "--store", folder / "artifacts", "--quiet").code == 0
    return folder


@pytest.fixture
def here(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, avvp: Command) -> Command:
    """Commands in a folder with a store; the clips lie beside it."""
    shutil.copytree(videos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return lambda *words: avvp(*words, *(("--videos", ".") if words[0] in ("decode", "extract") else ()))


def tree() -> set[str]:
    return {path.as_posix() for path in Path().rglob("*")}


def planned(avvp: Command, *words: str) -> Any:
    ran = avvp(*words, *HERE, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    return ran.document


@pytest.mark.parametrize("step", [DECODE, EXTRACT], ids=["decode", "extract"])
def test_it_tells_clips_bytes_and_time_and_leaves_nothing_behind(here: Command, step: tuple[str, ...]) -> None:
    Path("v003.mp4").unlink()
    before = tree()
    document = planned(here, *step)
    assert tree() == before
    (condition,) = document["steps"]
    assert (condition["stage"], condition["state"], condition["reasons"]) == (step[0], "missing", ["not made yet"])
    cost = document["estimate"]
    assert set(cost) == {"clips", "to_do", "missing_files", "bytes", "device", "workers", "sample", "seconds"}
    assert (cost["clips"], cost["to_do"], cost["missing_files"]) == (CLIPS, CLIPS, 1)
    assert cost["sample"] == {"clips": 4, "failures": []}
    seconds = cost["seconds"]
    assert set(seconds["once"]) == ONCE[step[0]]
    assert set(seconds["each"]) == EACH[step[0]]
    assert min([*seconds["once"].values(), *seconds["each"].values()]) >= 0
    assert seconds["clip"] == pytest.approx(sum(seconds["each"].values())), "this process alone does all of it"
    assert seconds["total"] == pytest.approx(sum(seconds["once"].values()) + seconds["clip"] * (CLIPS - 1))
    assert here(*step, *HERE).code == 1
    made = next(one for one in Store("artifacts").artifacts() if one.kind != "dataset")
    if step == EXTRACT:
        numbers = [made.array(name) for name in made.array_names() if "visual" in name or "audio" in name]
        assert cost["bytes"] == sum(array.nbytes for array in numbers)
    else:
        assert 0.7 < cost["bytes"] / made.size_bytes() < 1.3


def test_it_counts_what_is_left_of_a_run_that_was_broken_off_and_what_is_to_be_tried_again(here: Command) -> None:
    for row in (2, 18):
        Path(f"v{row:03d}.mp4").rename(f"away{row}")
    assert planned(here, *EXTRACT)["estimate"]["to_do"] == CLIPS
    assert here(*EXTRACT, *HERE).code == 1
    assert planned(here, *EXTRACT)["estimate"] is None, "it is cached"
    for flag, to_do, why in (("--force", CLIPS, "forced"), ("--retry-failed", 2, "2 failed clips are tried again")):
        document = planned(here, *EXTRACT, flag)
        assert document["estimate"]["to_do"] == to_do
        assert [(one["state"], one["reasons"]) for one in document["steps"]] == [("stale", [why])]
    Path("away2").rename("v002.mp4")
    assert planned(here, *EXTRACT)["estimate"]["to_do"] == CLIPS
    cost = planned(here, *EXTRACT, "--retry-failed")["estimate"]
    assert (cost["to_do"], cost["missing_files"]) == (2, 1)
    each = cost["seconds"]["clip"]
    assert cost["seconds"]["total"] == pytest.approx(sum(cost["seconds"]["once"].values()) + each)


def test_shards_that_an_interrupted_run_has_written_are_not_counted(
    here: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    from avvp_pipe.pipeline.catalogue import STAGES

    monkeypatch.setitem(STAGES, "decode", dataclasses.replace(STAGES["decode"], shard_rows=16))
    Path("v017.mp4").unlink()
    assert here(*DECODE, *HERE, "--max-failures", "0").code == 1
    assert planned(here, *DECODE)["estimate"]["to_do"] == 4


def test_features_of_kept_media_are_estimated_from_the_media(here: Command) -> None:
    read = ("extract", "--dataset", "mine", "--media", "mine", *TINY)
    assert planned(here, *read) == {"steps": planned(here, *read)["steps"], "estimate": None}, "media are missing"
    assert here(*DECODE, *HERE).code == 0
    for path in Path().glob("v*.mp4"):
        path.unlink()
    cost = planned(here, *read)["estimate"]
    assert (cost["to_do"], cost["missing_files"], cost["workers"]) == (CLIPS, 0, 0)
    assert cost["sample"] == {"clips": 4, "failures": []}
    part = planned(here, *read, "--shard", "2/2")["estimate"]
    assert (part["clips"], part["to_do"], part["sample"]["clips"]) == (4, 4, 4)


def test_where_no_sampled_clip_can_be_decoded_it_says_why_instead_of_a_time(here: Command) -> None:
    for path in Path().glob("v*.mp4"):
        path.write_text("not a video")
    cost = planned(here, *EXTRACT)["estimate"]
    assert cost["seconds"] is None
    assert [one["code"] for one in cost["sample"]["failures"]] == ["not-a-video"] * 4
    shown = here(*EXTRACT, *HERE, "--dry-run").out
    assert "c000 failed in the sample: not-a-video" in shown
    assert "time      cannot be told: no clip could be measured" in shown


def test_a_person_reads_a_table(here: Command) -> None:
    shown = here("extract", "--dataset", "mine", *TINY, "--dry-run", "--workers", "1")
    assert shown.code == 0
    assert "clips     20 to do of 20; files missing: 0" in shown.out
    assert "(cpu, 1 decoding process)" in shown.out
    for line in ("measured on 4 clips", "load the teachers, once", "image model, a clip", "every clip adds to the run"):
        assert line in shown.out
    assert "measuring on 4 of 20 clips" in shown.err


def test_weights_that_are_missing_are_told_by_a_dry_run_too(here: Command) -> None:
    ran = here("extract", "--dataset", "mine", *HERE, "--dry-run", "--json", "--visual-weights", "nowhere.safetensors")
    assert ran.code == 2
    assert "'nowhere.safetensors' is neither a tag nor a file" in ran.document["error"]
    assert "--visual-weights" in ran.document["error"]


def test_other_stages_say_their_condition_as_before(here: Command) -> None:
    document = here("dataset", "--source", "clips.jsonl", "--name", "mine", "--dry-run", "--json").document
    assert document["estimate"] is None
    assert document["steps"][0]["stage"] == "dataset"


def test_long_times_are_told_in_units_that_people_plan_in() -> None:
    assert [human_seconds(one) for one in (0.04, 119, 120, 7199, 7200, 172_800)] == [
        "0.0 s", "119.0 s", "2 min", "120 min", "2.0 h", "2.0 days",
    ]  # fmt: skip
