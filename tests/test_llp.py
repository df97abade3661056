"""The LLP reader, on six small files of the same form, and on the real ones where they are."""

from pathlib import Path

import numpy as np
import pytest

from avvp_pipe.stages.datasets import SEPARATE, Dataset, DatasetError, read_llp
from avvp_pipe.stages.datasets.llp import CLASSES

WEAK = {
    "AVVP_train.csv": ["-bcdefghijk_0_10\tSpeech,Dog", "Abcdefghijk_8.5_18.5\tCar"],
    "AVVP_val_pd.csv": ["valaaaaaaaa_30_40\tDog,Dog"],
    "AVVP_test_pd.csv": ["testaaaaaaa_0_10\tCat"],
}
DENSE = {
    "AVVP_eval_audio.csv": ["valaaaaaaaa_30_40\t0\t3\tDog", "valaaaaaaaa_30_40\t2\t5\tDog", "nobody_0_10\t0\t1\tCat"],
    "AVVP_eval_visual.csv": [
        "valaaaaaaaa_30_40\t9\t0\tDog",
        "testaaaaaaa_0_10\t4\t4\tCat",
        "testaaaaaaa_0_10\t1\t2\tCar",
    ],
}

# methods of the LLP files: class, train videos, val (weak, audio, visual, audio-visual seconds), test likewise.
REAL_COUNTS = """
Speech 4988 365 2099 432 432 625 3126 652 633
Dog 761 59 325 564 311 110 581 929 508
Frying_(food) 343 18 174 148 148 47 424 393 374
Violin_fiddle 1457 73 630 531 458 159 1351 1222 1039
Telephone_bell_ringing 99 8 44 29 23 11 71 48 39
Clapping 164 45 252 129 120 84 465 311 269
"""
REAL_FINDINGS = {
    "zero-length-row": 5,
    "reversed-row": 1,
    "orphan-clip": 8,
    "duplicate-row": 8,
    "audio-overlapping-rows": 21,
    "audio-touching-rows": 11,
    "visual-touching-rows": 3,
    "duplicate-weak-label": 1,
    "decimal-times": 5,
    "val-nothing-heard": 4,
    "test-nothing-heard": 6,
    "val-nothing-seen": 70,
    "test-nothing-seen": 121,
    "val-dense-class-not-weak": 21,
    "test-dense-class-not-weak": 33,
    "val-weak-class-not-dense": 11,
    "test-weak-class-not-dense": 21,
    "val-cells-outside-weak": 166 + 128,
    "test-cells-outside-weak": 150 + 157,
    "val-segment-events": 9126,
    "val-segment-events-one-modality": 4048,
    "test-segment-events": 16773,
    "test-segment-events-one-modality": 7181,
    "audio-file-version": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows in WEAK.items():
        (tmp_path / name).write_text("\n".join(["filename\tevent_labels", *rows]) + "\n")
    for name, rows in DENSE.items():
        (tmp_path / name).write_text("\n".join(["filename\tonset\toffset\tevent_labels", *rows]) + "\n")
    full = [row for rows in WEAK.values() for row in rows]
    (tmp_path / "AVVP_dataset_full.csv").write_text("\n".join(["filename\tevent_labels", *full]) + "\n")
    return tmp_path


def counts(dataset: Dataset) -> dict[str, int]:
    return {finding.code: finding.count for finding in dataset.report}


def test_ids_are_file_names_also_where_they_begin_with_a_dash_or_hold_decimals(folder: Path) -> None:
    assert read_llp(folder).video_ids[:2] == ("-bcdefghijk_0_10", "Abcdefghijk_8.5_18.5")


def test_an_event_covers_its_onset_and_not_its_offset_and_overlaps_are_unioned(folder: Path) -> None:
    dataset = read_llp(folder)
    row = dataset.video_ids.index("valaaaaaaaa_30_40")
    assert np.flatnonzero(dataset.audio[row, :, CLASSES.index("Dog")]).tolist() == [0, 1, 2, 3, 4]


def test_empty_and_reversed_rows_cover_nothing_and_are_reported(folder: Path) -> None:
    dataset = read_llp(folder)
    assert not dataset.visual[:, :, [CLASSES.index("Dog"), CLASSES.index("Cat")]].any()
    found = counts(dataset)
    assert (found["zero-length-row"], found["reversed-row"], found["orphan-clip"]) == (1, 1, 1)
    assert (found["duplicate-weak-label"], found["decimal-times"], found["test-dense-class-not-weak"]) == (1, 1, 1)


def test_training_clips_have_no_dense_labels(folder: Path) -> None:
    dataset = read_llp(folder)
    assert dataset.dense.tolist() == [0, 0, SEPARATE, SEPARATE]


def test_a_missing_file_is_named_with_where_it_comes_from(folder: Path) -> None:
    (folder / "AVVP_eval_audio.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks AVVP_eval_audio.csv .* YapengTian/AVVP-ECCV20"):
        read_llp(folder)


def test_an_unknown_class_is_an_error_with_file_and_line(folder: Path) -> None:
    with (folder / "AVVP_train.csv").open("a") as file:
        file.write("zbcdefghijk_0_10\tDoge\n")
    with pytest.raises(DatasetError, match=r"AVVP_train.csv, line 4: unknown class \['Doge'\]; LLP has Speech, Car"):
        read_llp(folder)


def test_videos_are_found_under_their_whole_and_their_short_name(folder: Path) -> None:
    videos = folder / "videos"
    videos.mkdir()
    (videos / "-bcdefghijk.mp4").touch()
    dataset = read_llp(folder, videos=videos)
    assert dataset.paths[0] == str(videos / "-bcdefghijk.mp4")
    assert dataset.paths[1] == str(videos / "Abcdefghijk_8.5_18.5.mp4")


@pytest.fixture(scope="module")
def real(real_data: Path) -> Dataset:
    return read_llp(real_data / "llp")


@pytest.mark.real_data
def test_the_real_files_have_10000_649_and_1200_clips_of_25_classes(real: Dataset) -> None:
    assert [real.splits.count(split) for split in ("train", "val", "test")] == [10000, 649, 1200]
    assert len(real.classes) == 25
    assert real.classes[:3] == ("Speech", "Car", "Cheering")
    assert real.classes[24] == "Clapping"


@pytest.mark.real_data
def test_every_kind_of_dirty_row_of_the_real_files_is_reported_with_its_count(real: Dataset) -> None:
    assert counts(real) == REAL_FINDINGS
    version = next(finding for finding in real.report if finding.code == "audio-file-version")
    assert "98d8ce2369078d43aa1df26d3ef2894c: 2024" in version.message


@pytest.mark.real_data
@pytest.mark.parametrize("line", REAL_COUNTS.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_real_files_give_the_documented_counts_of_each_class(real: Dataset, line: str) -> None:
    name, *numbers = line.split()
    column, splits = real.classes.index(name), np.array(real.splits)
    found = [int(real.weak[splits == "train", column].sum())]
    for split in ("val", "test"):
        rows = splits == split
        found.append(int(real.weak[rows, column].sum()))
        found += [int(grid[rows, :, column].sum()) for grid in (real.audio, real.visual, real.audio_visual)]
    assert found == [int(number) for number in numbers]
