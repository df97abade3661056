"""Videos that datasets share: by YouTube id, split by split, as a table and as a mask for pre-training."""

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avvp_pipe.stages.datasets import Dataset, read_ave, read_llp, read_unav
from avvp_pipe.stages.datasets.overlap import ids_by_split, shared_rows, shared_videos, video_of

youtube_ids = st.text(string.ascii_letters + string.digits + "-_", min_size=11, max_size=11)
suffixes = st.sampled_from(["", "_30_40", "_8.5_18.5", "_0", "_4142"])


@given(youtube_ids, suffixes)
def test_the_video_of_a_clip_is_its_youtube_id_whatever_dataset_cut_it(video: str, suffix: str) -> None:
    assert video_of(video + suffix) == video


@pytest.mark.parametrize("name", ["my clip", "short_1", "-Rjmgv0O_p0.mp4", "-Rjmgv0O_p0_a_b", "pretrain-00012", ""])
def test_a_clip_of_another_name_is_a_video_of_its_own(name: str) -> None:
    assert video_of(name) == name


clip_ids = st.lists(
    st.tuples(st.sampled_from(["aaaaaaaaaaa", "-bbbbbbbbb_", "ccccccccccc", "mine"]), suffixes).map("".join), max_size=8
)


@given(clip_ids, clip_ids)
def test_shared_rows_are_those_that_a_comparison_of_every_pair_finds(
    mine: Sequence[str], theirs: Sequence[str]
) -> None:
    found = shared_rows(mine, theirs)
    assert found.dtype == np.bool_
    assert found.tolist() == [any(video_of(one) == video_of(other) for other in theirs) for one in mine]


def test_rows_are_shared_with_a_clip_cut_from_other_seconds_of_the_video() -> None:
    assert shared_rows(["72f67ednp7w", "8WSesSOfBrE"], ["72f67ednp7w_30_40", "72f67ednp7w_3"]).tolist() == [True, False]
    assert shared_rows([], ["72f67ednp7w"]).shape == (0,)


def test_every_pair_of_splits_has_its_videos_each_once() -> None:
    one = {"test": ["aaaaaaaaaaa_0_10"], "train": ["bbbbbbbbbbb_0_10", "ccccccccccc_0_10"]}
    other = {"val": ["bbbbbbbbbbb_7", "bbbbbbbbbbb_9", "aaaaaaaaaaa_8"]}
    found = [(pair.split, pair.other_split, pair.videos) for pair in shared_videos(one, other)]
    assert found == [("train", "val", ("bbbbbbbbbbb",)), ("test", "val", ("aaaaaaaaaaa",))]


def manifest(folder: Path, name: str, *clips: tuple[str, str]) -> Path:
    path = folder / f"{name}.csv"
    lines = (f"{clip},{clip}.mp4,{split},Dog" for clip, split in clips)
    path.write_text("\n".join(("id,path,split,labels", *lines)) + "\n")
    return path


@pytest.fixture
def store(tmp_path: Path, avvp: Callable[..., Any]) -> Path:
    """Three datasets, of which the first two share a video."""
    folder = tmp_path / "store"
    of = {
        "one": [("aaaaaaaaaaa_0_10", "train"), ("bbbbbbbbbbb_0_10", "test")],
        "two": [("bbbbbbbbbbb", "train"), ("ddddddddddd", "train")],
        "three": [("mine", "val")],
    }
    for name, clips in of.items():
        assert avvp("dataset", "--source", manifest(tmp_path, name, *clips), "--store", folder, "--quiet").code == 0
    return folder


def test_the_command_counts_every_pair_of_splits_and_names_videos_when_asked(
    store: Path, avvp: Callable[..., Any]
) -> None:
    ran = avvp("overlap", "dataset/one", "two", "--store", store, "--json", "--list")
    assert ran.code == 0
    found = [(row["split"], row["other_split"], row["videos"], row["ids"]) for row in ran.document["overlaps"]]
    assert found == [("train", "train", 0, []), ("test", "train", 1, ["bbbbbbbbbbb"])]
    assert {row["of"].partition("@")[0] for row in ran.document["overlaps"]} == {"dataset/one"}
    assert "ids" not in avvp("overlap", "one", "two", "--store", store, "--json").document["overlaps"][0]
    table = avvp("overlap", "one", "two", "three", "--store", store)
    assert table.code == 0
    assert [line for line in table.out.splitlines() if line.startswith("videos that")] == [
        "videos that one and two share",
        "videos that one and three share",
        "videos that two and three share",
    ]
    assert ["one", "test", "1"] in [line.split() for line in table.out.splitlines()]
    assert "bbbbbbbbbbb  test of one, train of two" in avvp("overlap", "one", "two", "--list", "--store", store).out


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (("one",), "overlap holds two datasets or more against each other, each once; got dataset/one@"),
        (("one", "dataset/one"), "each once; got dataset/one@"),
        (("one", "two", "one"), "each once; got dataset/one@"),
        (("one", "labels/two"), "where one of kind dataset is wanted"),
        (("one", "nobody"), "no artifact dataset/nobody"),
    ],
)
def test_overlap_without_two_datasets_is_wrong_use(
    store: Path, avvp: Callable[..., Any], references: tuple[str, ...], message: str
) -> None:
    ran = avvp("overlap", *references, "--store", store)
    assert ran.code == 2
    assert message in ran.err


@pytest.fixture(scope="module")
def real(real_data: Path) -> dict[str, Dataset]:
    return {
        "llp": read_llp(real_data / "llp"),
        "unav": read_unav(real_data / "unav"),
        "ave": read_ave(real_data / "ave"),
    }


# Rows are train, val and test of the first, columns those of the second.
REAL_OVERLAPS = {
    ("llp", "unav"): [[142, 47, 48], [15, 2, 3], [11, 8, 2]],
    ("ave", "unav"): [[215, 65, 60], [30, 10, 3], [20, 8, 5]],
    ("ave", "llp"): [[265, 19, 26], [39, 1, 2], [36, 3, 5]],
}


@pytest.mark.real_data
@pytest.mark.parametrize("pair", REAL_OVERLAPS, ids="-".join)
def test_the_public_datasets_share_the_documented_videos(real: dict[str, Dataset], pair: tuple[str, str]) -> None:
    one, other = (ids_by_split(real[name].video_ids, real[name].splits) for name in pair)
    counts = np.array([len(found.videos) for found in shared_videos(one, other)]).reshape(3, 3)
    assert counts.tolist() == REAL_OVERLAPS[pair]


@pytest.mark.real_data
def test_training_on_unav_without_llps_videos_loses_the_documented_ones(real: dict[str, Dataset]) -> None:
    train = np.array(real["unav"].splits) == "train"
    shared = shared_rows(real["unav"].video_ids, real["llp"].video_ids)
    assert int(shared[train].sum()) == 142 + 15 + 11
