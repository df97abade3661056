"""The LLP reader, on six small files of the same form, and on the real ones where they are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from avvp_pipe.stages.datasets import Dataset, DatasetError, read_llp
from avvp_pipe.stages.datasets.llp import CLASSES
from avvp_pipe.stages.datasets.overlap import video_of
from avvp_pipe.stages.metrics import avvp_scores
from avvp_pipe.stages.rows import SEPARATE

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

# Counted once from the public files, without this reader: class, train videos, then for val and for test
# videos with the weak label and seconds heard, seen, and heard and seen.
REAL_COUNTS = """
Speech 4988 365 2099 432 432 625 3126 652 633
Car 624 43 349 370 317 91 645 835 623
Cheering 528 46 291 157 124 86 509 243 223
Dog 761 59 325 564 311 110 581 929 508
Cat 192 21 57 157 39 36 150 386 143
Frying_(food) 343 18 174 148 148 47 424 393 374
Basketball_bounce 455 35 118 124 98 46 164 197 141
Fire_alarm 218 12 93 83 64 24 182 149 108
Chainsaw 299 18 151 160 151 27 237 223 196
Cello 602 33 285 204 166 89 796 708 643
Banjo 186 14 90 95 68 31 272 237 209
Singing 1172 84 673 445 438 181 1389 899 899
Chicken_rooster 437 34 241 307 225 64 430 548 380
Violin_fiddle 1457 73 630 531 458 159 1351 1222 1039
Vacuum_cleaner 495 41 355 350 316 58 506 516 463
Baby_laughter 146 12 64 66 54 20 131 104 99
Accordion 445 29 294 233 225 52 461 332 297
Lawn_mower 224 16 137 133 113 28 225 262 198
Motorcycle 411 22 184 193 165 60 461 521 393
Helicopter 587 35 318 296 282 68 633 559 548
Acoustic_guitar 503 51 441 454 362 104 806 906 690
Telephone_bell_ringing 99 8 44 29 23 11 71 48 39
Baby_cry_infant_cry 430 34 278 242 233 43 337 293 256
Blender 291 22 146 213 146 34 224 316 221
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


def test_seconds_outside_the_clip_are_cut_off_and_reported(folder: Path) -> None:
    with (folder / "AVVP_eval_audio.csv").open("a") as file:
        file.write("testaaaaaaa_0_10\t-3\t2\tCat\ntestaaaaaaa_0_10\t8\t14\tCat\ntestaaaaaaa_0_10\t-5\t-2\tDog\n")
    dataset = read_llp(folder)
    row = dataset.video_ids.index("testaaaaaaa_0_10")
    assert np.flatnonzero(dataset.audio[row, :, CLASSES.index("Cat")]).tolist() == [0, 1, 8, 9]
    assert not dataset.audio[row, :, CLASSES.index("Dog")].any()
    assert counts(dataset)["row-outside-clip"] == 3


def test_a_full_file_that_is_not_the_three_splits_is_reported(folder: Path) -> None:
    assert "full-file-differs" not in counts(read_llp(folder))
    (folder / "AVVP_dataset_full.csv").write_text("filename\tevent_labels\nvalaaaaaaaa_30_40\tDog\n")
    assert counts(read_llp(folder))["full-file-differs"] == 1


def test_a_missing_file_is_named_with_where_it_comes_from(folder: Path) -> None:
    (folder / "AVVP_eval_audio.csv").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks AVVP_eval_audio.csv .* YapengTian/AVVP-ECCV20") as caught:
        read_llp(folder)
    assert all(name in str(caught.value) for name in (*WEAK, *DENSE, "AVVP_dataset_full.csv"))


def test_an_unknown_class_is_an_error_with_file_and_line(folder: Path) -> None:
    with (folder / "AVVP_train.csv").open("a") as file:
        file.write("zbcdefghijk_0_10\tDoge\n")
    with pytest.raises(DatasetError, match=r"AVVP_train.csv, line 4: unknown class \['Doge'\]; LLP has Speech, Car"):
        read_llp(folder)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("AVVP_train.csv", b"zbcdefghijk_0_10", r"AVVP_train.csv, line 4: wanted one cell for each of"),
        ("AVVP_train.csv", b"zbcdefghijk_0_10\tDog\tCat", r"AVVP_train.csv, line 4: wanted one cell for each of"),
        ("AVVP_train.csv", b"z\xe9\tDog", r"AVVP_train.csv is not the ASCII table .* fetch it anew"),
        ("AVVP_train.csv", b"z" * 200_000 + b"\tDog", r"AVVP_train.csv is not the ASCII table .* fetch it anew"),
        ("AVVP_train.csv", b"valaaaaaaaa_30_40\tDog", r"occur twice: valaaaaaaaa_30_40"),
        ("AVVP_eval_visual.csv", b"a\t0.5\t2\tDog", r"AVVP_eval_visual.csv, line 5: onset and offset should be whole"),
    ],
    ids=["short", "long", "not ASCII", "wide", "twice", "decimal"],
)
def test_a_bad_line_is_an_error_that_names_the_file(folder: Path, name: str, line: bytes, message: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(DatasetError, match=message):
        read_llp(folder)


def test_a_file_with_other_columns_is_an_error_that_names_those_wanted(folder: Path) -> None:
    (folder / "AVVP_train.csv").write_text("filename,event_labels\n")
    with pytest.raises(DatasetError, match=r"line 1: wanted the tab-separated columns \('filename', 'event_labels'\)"):
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
    assert real.classes == tuple(line.split()[0] for line in REAL_COUNTS.strip().splitlines())
    assert len(real.classes) == 25


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


@pytest.mark.real_data
def test_clips_of_the_real_files_have_the_documented_number_of_labels(real: Dataset) -> None:
    labels = {split: real.weak[np.array(real.splits) == split].sum(axis=1) for split in ("train", "val", "test")}
    assert [float(each.mean()) for each in labels.values()] == pytest.approx([1.61, 1.80, 1.82], abs=0.00501)
    assert [int(each.max()) for each in labels.values()] == [3, 4, 7]
    twice = sum(finding.count for finding in real.report if finding.code == "duplicate-weak-label")
    # One test clip names its one class twice, and is counted among the clips of several labels by the literature.
    assert [int((each > 1).sum()) for each in labels.values()] == [5968, 437, 797 - twice]
    assert sum(int((each > 1).sum()) for each in labels.values()) + twice == 7202


@pytest.mark.real_data
def test_no_two_clips_of_the_real_files_are_cut_from_one_video(real: Dataset) -> None:
    assert len({video_of(name) for name in real.video_ids}) == len(real.video_ids) == 11849
    assert all(video_of(name) == name[:11] for name in real.video_ids)
    dashed = [split for name, split in zip(real.video_ids, real.splits, strict=True) if name.startswith("-")]
    assert [dashed.count(split) for split in ("train", "val", "test")] == [132, 7, 12]


# Of each split: cells (clip, second, class) heard, seen, both, heard only, seen only; events heard, seen, both; then
# the percentage of clips whose weak label is what is heard or seen somewhere, and of those where it is both.
REAL_CELLS = {
    "val": ([8089, 6115, 5078, 3011, 1037], [1440, 856, 872], [95.2, 41.9]),
    "test": ([14576, 11789, 9592, 4984, 2197], [2638, 1625, 1617], [95.6, 44.2]),
}


@pytest.mark.real_data
@pytest.mark.parametrize("split", REAL_CELLS)
def test_seconds_and_events_of_the_real_files_are_as_many_as_documented(real: Dataset, split: str) -> None:
    rows = np.array(real.splits) == split
    heard, seen, weak = real.audio[rows], real.visual[rows], real.weak[rows]
    both = heard & seen
    cells = [int(grid.sum()) for grid in (heard, seen, both, heard & ~seen, seen & ~heard)]
    np.testing.assert_array_equal(real.audio_visual[rows], both)
    runs = [sum(runs_of(column) for clip in grid for column in clip.T) for grid in (heard, seen, both)]
    somewhere = (heard.any(axis=1) | seen.any(axis=1), heard.any(axis=1) & seen.any(axis=1))
    shares = [round(100 * float((happening == weak).all(axis=1).mean()), 1) for happening in somewhere]
    assert (cells, runs, shares) == REAL_CELLS[split]


def runs_of(column: NDArray[np.bool_]) -> int:
    """Stretches of True."""
    return sum(bool(now) and not before for before, now in zip((False, *column), column, strict=False))


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("split", "ceiling"),
    [("val", [98.36, 98.74, 98.97, 98.69, 98.36]), ("test", [99.08, 98.83, 99.36, 99.09, 98.83])],
)
def test_labels_within_the_weak_ones_can_score_no_more_than_documented(
    real: Dataset, split: str, ceiling: list[float]
) -> None:
    rows = np.array(real.splits) == split
    weak = real.weak[rows][:, None]
    heard, seen = real.audio[rows], real.visual[rows]
    scores = avvp_scores(heard & weak, seen & weak, heard, seen)["segment"]
    assert [round(scores[metric], 2) for metric in ("A", "V", "AV", "Type", "Event")] == ceiling


@pytest.mark.real_data
def test_the_rows_reported_are_those_documented(real: Dataset) -> None:
    found = {finding.code: finding.examples for finding in real.report}
    assert found["reversed-row"] == ("8DF2PxdT5tE_390_400 9,0 Cheering",)
    assert found["duplicate-weak-label"] == ("LcFWKgFphXI_20_30",)
    assert {row.split("_")[0] for row in found["decimal-times"]} == {
        "AP0061o0Nvk",
        "AKVyIQoSyBA",
        "ApKgnUPayqU",
        "BYEc9L5kGKQ",
        "Br4mum2rWtY",
    }
    assert {"19jWnmYnlD8_30_400", "VMTJRpjbE_150_160", "7X3oSVoA_90_100"} < set(found["orphan-clip"])


@pytest.mark.real_data
@pytest.mark.parametrize(("split", "wanted"), [("val", (36.67, 67.33, 26.35)), ("test", (38.08, 65.58, 27.0))])
def test_predicting_nothing_scores_what_it_scores_by_coleafs_metrics(
    real: Dataset, split: str, wanted: tuple[float, ...]
) -> None:
    rows = np.array(real.splits) == split
    heard, seen = real.audio[rows], real.visual[rows]
    scores = avvp_scores(np.zeros_like(heard), np.zeros_like(seen), heard, seen)["segment"]
    # Saying the same of both modalities scores as much, whatever is said.
    alike = avvp_scores(heard, heard, heard, seen)["segment"]
    for found in (scores, alike):
        assert [found[name] for name in ("Ao", "Vo", "Evento")] == pytest.approx(wanted, abs=0.006)


@pytest.mark.real_data
def test_the_audio_file_of_2020_is_read_and_recognised(real_data: Path, real: Dataset, tmp_path: Path) -> None:
    # Undoes upstream's correction of April 2024: three rows, all of test clips.
    for file in (real_data / "llp").glob("AVVP_*.csv"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (tmp_path / "AVVP_eval_audio.csv").read_text()
    for now, then in (
        ("JfZEqeLZqWk_30_40\t0\t4\t", "Baby_cry_infant_cry\t0\t4\t"),
        ("JfZEqeLZqWk_30_40\t7\t10\t", "Baby_cry_infant_cry\t7\t10\t"),
        ("KvIjsmANkxI_10_20\t0\t1\t", "KvIjsmANkxI_10_20`\t0\t1\t"),
    ):
        assert text.count(now) == 1
        text = text.replace(now, then)
    (tmp_path / "AVVP_eval_audio.csv").write_text(text)
    old = read_llp(tmp_path)
    found = {finding.code: finding for finding in old.report}
    assert "a8b6b747e59a4ea2501e51cd717f3b4f: 2020" in found["audio-file-version"].message
    assert {"Baby_cry_infant_cry", "KvIjsmANkxI_10_20`"} < set(found["orphan-clip"].examples)
    changed = np.flatnonzero((old.audio != real.audio).any(axis=(1, 2)))
    assert {(old.splits[row], old.video_ids[row]) for row in changed} == {
        ("test", "JfZEqeLZqWk_30_40"),
        ("test", "KvIjsmANkxI_10_20"),
    }
