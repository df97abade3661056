"""Clips that fail: listed with their reasons, tried again by themselves, and no more of them than one put up with."""

import csv
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.stages.clips.failures import FailureLimit, TooManyFailuresError, failure_limit
from avvp_pipe.store import Store
from tests.small_world import TINY, arrays_of, files_of, small_world

CLIPS = 20
MISSING, TEXT = (1, 4, 18), (7,)
DECODING = ("--frame-size", "64", "--sample-rate", "16000")
HERE = ("--workers", "0", "--quiet")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty sound clips; tests take a copy."""
    folder = tmp_path_factory.mktemp("videos")
    small_world(folder, CLIPS)
    return folder


Command = Callable[..., Any]


@pytest.fixture
def here(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, avvp: Command) -> Command:
    """Commands in a folder with the clips and a store that has their dataset."""
    shutil.copytree(videos, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert avvp("dataset", "--source", "clips.jsonl", "--name", "mine", "--quiet").code == 0
    return avvp


def video(row: int) -> Path:
    return Path(f"v{row:03d}.mp4")


@contextmanager
def broken(*, missing: tuple[int, ...] = (), text: tuple[int, ...] = ()) -> Iterator[None]:
    """Some files gone, and some replaced by text; whole again afterwards, times of change included."""
    aside = Path("aside")
    aside.mkdir()
    for row in (*missing, *text):
        video(row).rename(aside / video(row))
    for row in text:
        video(row).write_text("not a video")
    try:
        yield
    finally:
        for path in aside.iterdir():
            path.replace(path.name)
        aside.rmdir()


@contextmanager
def unreadable(rows: "set[int] | range") -> Iterator[None]:
    """Files whose content a bad drive does not deliver, though name, size and time say that nothing has changed."""
    kept = {row: (video(row).read_bytes(), video(row).stat()) for row in rows}
    for row, (content, stat) in kept.items():
        put_back(row, b"\0" * len(content), stat)
    try:
        yield
    finally:
        for row, (content, stat) in kept.items():
            put_back(row, content, stat)


def put_back(row: int, content: bytes, stat: os.stat_result) -> None:
    with video(row).open("r+b") as file:
        file.write(content)
    os.utime(video(row), ns=(stat.st_atime_ns, stat.st_mtime_ns))


def extract(avvp: Command, *more: str) -> Any:
    return avvp("extract", "--dataset", "mine", *TINY, *HERE, *more, "--json")


def feature_files() -> dict[str, bytes]:
    return files_of(Store("artifacts").get("features/mine").path)


def from_nothing(avvp: Command, *steps: tuple[str, ...]) -> dict[str, bytes]:
    """What the steps make of the clips as they are, in a store of their own."""
    store = ("--store", "another", "--quiet")
    assert avvp("dataset", "--source", "clips.jsonl", "--name", "mine", *store).code == 0
    for step in steps:
        assert avvp(*step, *store).code == 0
    return files_of(Store("another").get("features/mine").path)


STREAMED = ("extract", "--dataset", "mine", *TINY, "--workers", "0")


def test_failures_lists_counts_then_every_clip_with_its_file_and_how_to_try_it_again(here: Command) -> None:
    with broken(missing=MISSING, text=TEXT):
        ran = here("extract", "--dataset", "mine", *TINY, *HERE)
        assert ran.code == 1
        assert "avvp-pipe failures features/mine@" in ran.out
        assert f"videos were looked for in {Path.cwd()}" in ran.out
        shown = here("failures", "features/mine", "--csv", "failed.csv")
        told = here("failures", "features/mine", "--json")
    assert (shown.code, told.code) == (1, 1)
    assert shown.out.index("missing-file") < shown.out.index("not-a-video")
    assert list(told.document["counts"].items()) == [("missing-file", 3), ("not-a-video", 1)]
    assert [one["video_id"] for one in told.document["failures"]] == ["c001", "c004", "c007", "c018"]
    for one in told.document["failures"]:
        assert one["path"] == str(Path.cwd() / one["path"].rpartition("/")[2])
        assert f"{one['video_id']}: {one['code']}: {one['message']}" in shown.out
    with Path("failed.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == told.document["failures"]
    only = here("failures", "features/mine", "--code", "not-a-video", "--json")
    assert (only.code, only.document["failed"]) == (1, 1)
    assert here("failures", "features/mine", "--code", "timeout").code == 0
    wrong = here("failures", "features/mine", "--code", "boredom")
    assert (wrong.code, "there are corrupt, decoder-died" in wrong.err) == (2, True)
    (command,) = told.document["again"]
    assert command in shown.out
    assert here(*shlex.split(command)[1:], "--quiet").code == 0
    none = here("failures", "features/mine", "--json")
    assert (none.code, none.document["failures"], none.document["again"]) == (0, [], [])


def test_where_media_were_kept_the_commands_decode_again_and_then_embed_again(here: Command) -> None:
    steps = (("decode", "--dataset", "mine", *DECODING, "--workers", "0"),
             ("extract", "--dataset", "mine", "--media", "mine", *TINY))  # fmt: skip
    wanted = from_nothing(here, *steps)
    with broken(missing=MISSING, text=TEXT):
        assert [here(*step, "--quiet").code for step in steps] == [1, 1]
        commands = here("failures", "features/mine", "--json").document["again"]
    assert [command.split()[1] for command in commands] == ["decode", "extract"]
    assert [here(*shlex.split(command)[1:], "--quiet").code for command in commands] == [0, 0]
    assert feature_files() == wanted


def test_of_mended_clips_only_those_are_decoded_and_the_result_is_that_of_a_run_from_nothing(here: Command) -> None:
    wanted = from_nothing(here, STREAMED)
    with broken(missing=MISSING, text=TEXT):
        assert len(extract(here).document["failures"]) == len(MISSING + TEXT)
        before = Store("artifacts").get("features/mine")
        visual = before.array("visual")
    sound = sorted(set(range(CLIPS)) - {*MISSING, *TEXT})
    with unreadable({*sound}):  # whoever decodes one of them gets nothing from it
        ran = extract(here, "--retry-failed")
    assert (ran.code, ran.document["state"], ran.document["failures"]) == (0, "built", [])
    after = Store("artifacts").get("features/mine")
    assert after.key != before.key
    assert after.array("visual")[sound].tobytes() == visual[sound].tobytes()
    assert feature_files() == wanted


def test_clips_that_failed_for_no_fault_of_theirs_are_replaced_under_the_same_key_and_readers_are_told(
    here: Command,
) -> None:
    decode = ("decode", "--dataset", "mine", *DECODING, *HERE, "--json")
    read = ("extract", "--dataset", "mine", "--media", "mine", *TINY)
    wanted = from_nothing(here, ("decode", "--dataset", "mine", *DECODING, "--workers", "0"), read)
    with unreadable({2, 19}):
        failed = here(*decode).document
        assert [one["video_id"] for one in failed["failures"]] == ["c002", "c019"]
        assert here(*read, "--quiet").code == 1
    assert here(*decode).document["state"] == "cached"
    again = here(*decode, "--retry-failed").document
    assert (again["artifact"], again["state"], again["failures"]) == (failed["artifact"], "built", [])
    assert again["reasons"] == ["2 failed clips are tried again"]
    (media, features) = here("status", "--json").document["steps"][1:]
    assert (media["state"], features["state"]) == ("cached", "stale")
    assert features["reasons"] == ["input media was built anew since"]
    assert here(*read, "--quiet").code == 0
    assert feature_files() == wanted
    assert {step["state"] for step in here("status", "--json").document["steps"]} == {"cached"}


def test_what_was_begun_of_media_that_are_built_anew_meanwhile_begins_again(here: Command) -> None:
    decode = ("decode", "--dataset", "mine", *DECODING, *HERE)
    read = ("extract", "--dataset", "mine", "--media", "mine", *TINY)
    wanted = from_nothing(here, ("decode", "--dataset", "mine", *DECODING, "--workers", "0"), read)
    with unreadable({2, 19}):
        assert here(*decode).code == 1
    assert here(*read, "--max-failures", "1", "--quiet").code == 1
    assert list(Path("artifacts/features/mine").glob(".*.partial/scratch/units/*.npz")), "it was broken off on its way"
    assert here(*decode, "--retry-failed").code == 0
    assert here(*read, "--quiet").code == 0
    assert feature_files() == wanted


def test_what_reads_stale_features_is_stale_too_and_a_dataset_that_moved_makes_nothing_stale(here: Command) -> None:
    decode = ("decode", "--dataset", "mine", "--videos", ".", *DECODING, *HERE)
    with unreadable({2}):
        assert here(*decode).code == 1
    assert here("extract", "--dataset", "mine", "--media", "mine", *TINY, "--quiet").code == 1
    label = ("pseudolabel", "--method", "video-labels", "--dataset", "mine", "--features", "mine", "--quiet")
    assert here(*label).code == 0
    Path("elsewhere").mkdir()
    shutil.copy("clips.jsonl", "elsewhere")
    before = Store("artifacts").get("dataset/mine").digest
    assert here("dataset", "--source", "elsewhere/clips.jsonl", "--name", "mine", "--force", "--quiet").code == 0
    assert Store("artifacts").get("dataset/mine").digest != before
    assert {one["state"] for one in here("status", "--json").document["steps"]} == {"cached"}
    assert here(*decode, "--retry-failed").code == 0
    steps = here("status", "--json").document["steps"]
    assert [one["state"] for one in steps] == ["cached", "cached", "stale", "stale"]
    assert steps[3]["reasons"] == ["input features is to be built anew"]


def test_all_anew_and_only_what_failed_are_not_asked_for_at_once(here: Command) -> None:
    ran = extract(here, "--force", "--retry-failed")
    assert (ran.code, "give one of them" in ran.document["error"]) == (2, True)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_a_file_whose_bytes_cannot_be_read_costs_its_clip_and_not_the_run(here: Command) -> None:
    video(3).unlink()
    video(3).symlink_to("/proc/self/mem")
    ran = extract(here)
    assert ran.code == 1, ran.err
    assert [one["video_id"] for one in ran.document["failures"]] == ["c003"]


def test_a_later_artifact_of_the_name_does_not_hide_the_one_that_is_tried_again(here: Command) -> None:
    with broken(missing=(1,)):
        extract(here)
        assert extract(here, "--stored-as", "float16").code == 1
        assert extract(here).document["state"] == "cached"
    with unreadable(set(range(CLIPS)) - {1}):  # their time of change is as it was
        assert extract(here, "--retry-failed", "--max-failures", "0").code == 0
    Store("artifacts").discard(Store("artifacts").get("features/mine"))  # as if a kill had come before the end
    with unreadable(set(range(CLIPS)) - {1}):
        ran = extract(here, "--retry-failed", "--max-failures", "0")
    assert (ran.code, ran.document["state"]) == (0, "built"), ran.err


def test_where_nothing_failed_nothing_is_tried_and_where_nothing_is_all_is_made(here: Command) -> None:
    first = extract(here, "--retry-failed")
    assert (first.code, first.document["state"]) == (0, "built")
    assert feature_files() == from_nothing(here, STREAMED)
    with unreadable(range(CLIPS)):
        assert extract(here, "--retry-failed").document["state"] == "cached"


def test_a_clip_that_fails_again_keeps_its_new_reason_and_costs_no_other(here: Command) -> None:
    with broken(missing=(1, 4)):
        extract(here)
        before = arrays_of(Store("artifacts").get("features/mine"))
        video(4).write_text("not a video")
        ran = extract(here, "--retry-failed")
    codes = {one["video_id"]: one["code"] for one in ran.document["failures"]}
    assert codes == {"c001": "missing-file", "c004": "not-a-video"}
    after = arrays_of(Store("artifacts").get("features/mine"))
    assert after["visual"] == before["visual"]
    assert after["status"] != before["status"]


def test_more_failures_than_allowed_end_the_run_and_a_higher_limit_goes_on_to_the_same_bytes(here: Command) -> None:
    with broken(missing=(0, 1, 2, 17)):
        whole = here("extract", "--dataset", "mine", *TINY, *HERE, "--json", "--name", "whole")
        assert len(whole.document["failures"]) == 4
        for limit in ("2", "10%"):
            ran = extract(here, "--max-failures", limit)
            assert ran.code == 1
            assert "3 clips failed, and --max-failures allows 2; the last: c002, missing-file" in ran.document["error"]
            assert "run the same command with a higher limit to go on" in ran.err
        assert not list(Store("artifacts").artifacts())[2:]
        kept = list(Path("artifacts/features/mine").glob(".*.partial/scratch/units/*.npz"))
        assert [path.stem for path in kept] == ["000000000"], "the first unit is kept, the second was not begun"
        with unreadable(set(range(3, 16))):  # the first unit is not made again
            ran = extract(here, "--max-failures", "20%")
        assert (ran.code, len(ran.document["failures"])) == (1, 4)
    assert feature_files() == files_of(Store("artifacts").get("features/whole").path)


@pytest.mark.parametrize("limit", ["x", "-1", "101%", "5 %", "1.5", "%"])
def test_a_limit_that_is_none_is_told_before_anything_is_done(here: Command, limit: str) -> None:
    ran = here("extract", "--dataset", "mine", *TINY, *HERE, f"--max-failures={limit}", "--json")
    assert ran.code == 2
    assert f"--max-failures {limit!r} is neither a number of clips nor a percentage such as 5%" in ran.document["error"]
    assert not Path("artifacts/features").exists()


def test_a_limit_allows_as_many_as_it_says() -> None:
    assert failure_limit("", 10) == FailureLimit(None)
    assert failure_limit("2.5%", 200) == FailureLimit(5)
    FailureLimit(None).check(10**6)
    FailureLimit(5).check(5)
    with pytest.raises(TooManyFailuresError, match="6 clips failed, and --max-failures allows 5"):
        FailureLimit(5).check(6)
