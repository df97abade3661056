"""The AVE reader and AVE's accuracy: small files of the same form, a stranger's faults, and the real files' counts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.ave_accuracy import ave_accuracy, class_indices, class_labels
from avvp_pipe.stages.datasets import CLASS_ORDERS, Dataset, DatasetError, prompt_sets, read_ave
from avvp_pipe.stages.datasets.ave import OFFICIAL
from avvp_pipe.stages.datasets.ave_order import order_of
from avvp_pipe.stages.rows import JOINT, SEPARATE
from avvp_pipe.store import Store

LINES = (
    "Church bell&RUhOCu3LNXM&good&0&10",
    "Male speech, man speaking&-ccciEuH9FE&good&5&10",
    "Female speech, woman speaking&-ccciEuH9FE&good&5&7",
    "Church bell&VWi2ENBuTbw&good&0&0",
)
SPLITS: dict[str, Any] = {"train": [2, 0], "val": [3], "test": [1]}
BACKGROUND = 28


def order_file(path: Path, numbers: Any, name: str = "order", **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset(name, data=numbers, **options)
    return path


def write(folder: Path, lines: Sequence[str] = LINES, splits: Mapping[str, Any] = SPLITS) -> Path:
    (folder / "Annotations.txt").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    for split, numbers in splits.items():
        order_file(folder / f"{split}_order.h5", np.array(numbers))
    return folder


def counts(dataset: Dataset) -> dict[str, int]:
    return {finding.code: finding.count for finding in dataset.report}


def test_a_row_is_a_sample_of_its_own_also_where_two_rows_have_one_video(tmp_path: Path) -> None:
    dataset = read_ave(write(tmp_path))
    assert dataset.video_ids == ("RUhOCu3LNXM_0", "-ccciEuH9FE_1", "-ccciEuH9FE_2", "VWi2ENBuTbw_3")
    assert dataset.splits == ("train", "test", "train", "val")
    assert dataset.paths == ("RUhOCu3LNXM.mp4", "-ccciEuH9FE.mp4", "-ccciEuH9FE.mp4", "VWi2ENBuTbw.mp4")
    assert [OFFICIAL[column] for column in dataset.weak.nonzero()[1]] == [line.split("&")[0] for line in LINES]


def test_an_event_covers_its_start_and_not_its_end_and_the_rest_is_background(tmp_path: Path) -> None:
    dataset = read_ave(write(tmp_path))
    assert dataset.dense.tolist() == [JOINT] * 4
    speech = OFFICIAL.index("Female speech, woman speaking")
    assert class_indices(dataset.audio_visual)[2].tolist() == [BACKGROUND] * 5 + [speech] * 2 + [BACKGROUND] * 3
    assert class_indices(dataset.audio_visual)[3].tolist() == [BACKGROUND] * 10


def test_videos_are_looked_for_under_the_youtube_id(tmp_path: Path) -> None:
    dataset = read_ave(write(tmp_path), videos=tmp_path / "videos")
    assert dataset.paths[1] == dataset.paths[2] == str(tmp_path / "videos" / "-ccciEuH9FE.mp4")


def test_both_orders_of_classes_name_the_same_events(tmp_path: Path) -> None:
    official, uwav = (read_ave(write(tmp_path), class_order=order) for order in ("official", "uwav"))
    assert official.classes != uwav.classes
    columns = [uwav.classes.index(name) for name in official.classes]
    np.testing.assert_array_equal(uwav.weak[:, columns], official.weak)
    np.testing.assert_array_equal(uwav.audio_visual[:, :, columns], official.audio_visual)
    assert official.audio_visual.any()


def test_what_is_odd_is_reported(tmp_path: Path) -> None:
    dataset = read_ave(write(tmp_path, [LINES[0].replace("good", "poor"), *LINES[1:]]))
    assert counts(dataset) == {
        "zero-length-row": 1,
        "quality": 1,
        "video-of-several-rows": 1,
        "test-video-in-train": 1,
        "train-background": 8,
        "val-background": 10,
        "test-background": 5,
    }
    examples = {finding.code: finding.examples for finding in dataset.report}
    assert examples["zero-length-row"] == ("VWi2ENBuTbw 0,0 Church bell",)
    assert examples["video-of-several-rows"] == ("-ccciEuH9FE: rows 1, 2",)
    assert examples["test-video-in-train"] == ("-ccciEuH9FE",)


def test_the_header_that_comes_with_the_videos_is_no_row(tmp_path: Path) -> None:
    plain = read_ave(write(tmp_path))
    headed = read_ave(write(tmp_path, ["Category&VideoID&Quality&StartTime&EndTime", *LINES]))
    assert headed.video_ids == plain.video_ids
    np.testing.assert_array_equal(headed.audio_visual, plain.audio_visual)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Church bell&RUhOCu3LNXM&good&0", r"line 5: wanted category&YouTube id&quality&start&end, found 'Church"),
        ("Church bell&RUhOCu3LNXM&good&0&10&more", "line 5: wanted category&YouTube id"),
        ("", None),
        ("Church bel&RUhOCu3LNXM&good&0&10", "line 5: unknown category 'Church bel'; did you mean 'Church bell'"),
        ("Xyz&RUhOCu3LNXM&good&0&10", "unknown category 'Xyz'; AVE has Church bell; Male speech, man speaking;"),
        ("Church bell&../../etc/xy&good&0&10", "wanted a YouTube id of 11 letters"),
        ("Church bell&short&good&0&10", "wanted a YouTube id of 11 letters"),
        ("Church bell&RUhOCu3LNXM&good&7&3", "whole seconds from 0 to 10, the end not before the start, but are '7'"),
        ("Church bell&RUhOCu3LNXM&good&0&11", "whole seconds from 0 to 10"),
        ("Church bell&RUhOCu3LNXM&good&-1&3", "whole seconds from 0 to 10"),
        ("Church bell&RUhOCu3LNXM&good&nan&3", "whole seconds from 0 to 10"),
        ("Church bell&RUhOCu3LNXM&good&0&2.5", "whole seconds from 0 to 10"),
        ("Church bell&RUhOCu3LNXM&g\u00f6\u00f6d&0&2", "is not the ASCII text that AVE has"),
    ],
)
def test_a_bad_line_is_an_error_with_file_and_line(tmp_path: Path, line: str, message: str | None) -> None:
    splits = SPLITS if message is None else SPLITS | {"test": [1, 4]}
    folder = write(tmp_path, [*LINES, line], splits)
    if message is None:  # an empty last line is none
        assert len(read_ave(folder).video_ids) == 4
        return
    with pytest.raises(DatasetError, match=message) as caught:
        read_ave(folder)
    assert str(tmp_path / "Annotations.txt") in str(caught.value)


def test_annotations_that_are_empty_or_too_large_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has no lines; wanted lines category&YouTube id"):
        read_ave(write(tmp_path, []))
    with (tmp_path / "Annotations.txt").open("wb") as file:
        file.write(b"a" * (2**24 + 1))
    with pytest.raises(DatasetError, match="is larger than 16777216 bytes"):
        read_ave(tmp_path)


def test_missing_files_are_named_with_where_they_come_from(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "val_order.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks val_order.h5 of AVE's four files .* YapengTian/AVE-ECCV18"):
        read_ave(tmp_path)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"test": [1, 0]}, "test_order.h5 holds row 0, which train_order.h5 holds too"),
        ({"val": [3, 3]}, "val_order.h5 holds row 3, which val_order.h5 holds too, or itself twice"),
        ({"val": []}, r"1 of 4 rows of .*Annotations.txt are in no split, first row 3 \(from 0\)"),
        ({"val": [4]}, "val_order.h5 holds row 4, but the annotations have rows 0 to 3"),
        ({"val": [-1]}, "val_order.h5 holds row -1"),
        ({"val": [0.5]}, "whole numbers, at most 4 of them, but it is float64 of shape"),
        ({"val": [[3]]}, r"a one-dimensional array `order` .* but it is int64 of shape \(1, 1\)"),
        ({"val": [0] * 5}, r"at most 4 of them, but it is int64 of shape \(5,\)"),
        ({"val": 3}, r"but it is int64 of shape \(\)"),
    ],
)
def test_splits_that_do_not_share_out_the_rows_are_refused(
    tmp_path: Path, splits: dict[str, Any], message: str
) -> None:
    splits = {name: np.array(rows, int if rows == [] else None) for name, rows in (SPLITS | splits).items()}
    with pytest.raises(DatasetError, match=message):
        read_ave(write(tmp_path, splits=splits))


def _text(path: Path) -> None:
    path.write_text("1 2 3")


def _cut(path: Path) -> None:
    whole = order_file(path, np.arange(4)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**20 + 1)


def _group(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_group("order")


def _link(path: Path) -> None:
    order_file(path.with_name("other.h5"), np.arange(4))
    with h5py.File(path, "w") as file:
        file["order"] = h5py.ExternalLink("other.h5", "order")


def _virtual(path: Path) -> None:
    order_file(path.with_name("other.h5"), np.arange(4))
    layout = h5py.VirtualLayout((4,), np.int64)
    layout[:] = h5py.VirtualSource(str(path.with_name("other.h5")), "order", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("order", layout)


def _elsewhere(path: Path) -> None:
    raw = path.with_name("raw")
    raw.write_bytes(np.arange(4).tobytes())
    with h5py.File(path, "w") as file:
        file.create_dataset("order", (4,), np.int64, external=[(str(raw), 0, 32)])


def _huge_chunks(path: Path) -> None:
    with h5py.File(path, "w") as file:  # nothing is written to it, so that no chunk takes room
        file.create_dataset("order", (4,), np.int64, chunks=(2**28,), maxshape=(None,))


STRANGE_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (_text, "is no HDF5 file that can be read"),
    "half a file": (_cut, "is no HDF5 file that can be read"),
    "a large file": (_large, "is larger than 1048576 bytes"),
    "another name": (lambda path: order_file(path, np.arange(4), "orders"), "not there, .* the file holds orders"),
    "a group": (_group, "or a group or a link; the file holds order"),
    "a link to another file": (_link, "or a group or a link"),
    "a view of another file": (_virtual, "it lies in other files"),
    "bytes in another file": (_elsewhere, "it lies in other files"),
    "text for numbers": (lambda path: order_file(path, np.array([b"1", b"2"])), "but it is |S1"),
    "huge chunks": (_huge_chunks, "its chunks are of 268435456 elements; more than 1048576 are not read"),
}


@pytest.mark.parametrize("kind", STRANGE_FILES)
def test_an_order_file_of_a_stranger_is_refused_and_nothing_else_is_opened(tmp_path: Path, kind: str) -> None:
    make, message = STRANGE_FILES[kind]
    path = tmp_path / "val_order.h5"
    make(path)
    with pytest.raises(DatasetError, match=message) as caught:
        order_of(path, rows=4)
    assert str(path) in str(caught.value)


def test_the_command_records_both_orders_of_classes_and_which_is_used(tmp_path: Path, avvp: Callable[..., Any]) -> None:
    where = ("--reader", "ave", "--source", write(tmp_path), "--name", "ave", "--store", tmp_path / "store", "--quiet")
    assert avvp("dataset", *where).code == 0
    official = Store(tmp_path / "store").get("dataset/ave")
    assert avvp("dataset", *where, "--class-order", "uwav", "--joint", "each").code == 0
    uwav = Store(tmp_path / "store").get("dataset/ave")
    assert official.key != uwav.key
    assert [one.attrs["class_order"]["used"] for one in (official, uwav)] == ["official", "uwav"]
    for one in (official, uwav):
        order = one.attrs["class_order"]
        assert one.attrs["classes"] == order[order["used"]]
        assert (order["official"], order["uwav"]) == (list(CLASS_ORDERS["official"]), list(CLASS_ORDERS["uwav"]))
    assert {*official.provenance["sources"]} == {"Annotations.txt", *(f"{split}_order.h5" for split in SPLITS)}
    assert (official.array("dense").tolist(), uwav.array("dense").tolist()) == ([JOINT] * 4, [SEPARATE] * 4)
    np.testing.assert_array_equal(uwav.array("audio"), uwav.array("audio_visual"))


def test_uwavs_order_is_the_alphabetical_list_of_its_released_code() -> None:
    assert CLASS_ORDERS["uwav"] == (
        "Accordion", "Acoustic guitar", "Baby cry, infant cry", "Banjo", "Bark", "Bus", "Cat", "Chainsaw",
        "Church bell", "Clock", "Female speech, woman speaking", "Fixed-wing aircraft, airplane", "Flute",
        "Frying (food)", "Goat", "Helicopter", "Horse", "Male speech, man speaking", "Mandolin", "Motorcycle",
        "Race car, auto racing", "Rodents, rats, mice", "Shofar", "Toilet flush", "Train horn", "Truck", "Ukulele",
        "Violin, fiddle",
    )  # fmt: skip


def test_prompts_keep_the_commas_of_aves_names_and_valors_words_for_llps_classes() -> None:
    sets = prompt_sets(OFFICIAL)
    man, violin, frying = (
        OFFICIAL.index(name) for name in ("Male speech, man speaking", "Violin, fiddle", "Frying (food)")
    )
    assert sets["uwav"].audio[man] == "This is the sound of male speech, man speaking"
    assert sets["uwav"].visual[man] == "A photo of male speech, man speaking"
    assert sets["valor"].audio[man] == "This is a sound of male speech, man speaking"
    assert sets["valor"].visual[man] == "A photo of male speech, man speaking."
    assert (sets["valor"].visual[violin], sets["valor"].visual[frying]) == (
        "A photo of a violin.",
        "A photo of frying food.",
    )
    assert "valor-paper" not in sets  # VALOR's typos are for LLP only
    for one in sets.values():
        assert len(set(one.audio)) == len(set(one.visual)) == 28


def test_several_classes_in_a_second_have_no_index() -> None:
    labels = np.zeros((2, 3, 4), bool)
    labels[1, 2, [0, 3]] = True
    with pytest.raises(
        ValueError, match="1 seconds have several classes, the first is second 2 of clip 1 with classes 0, 3"
    ):
        class_indices(labels)


@pytest.mark.parametrize("labels", [np.zeros((2, 3), bool), np.zeros((2, 3, 4)), np.zeros((2, 3, 0), bool)])
def test_what_is_no_boolean_grid_has_no_indices(labels: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="wanted boolean labels of shape"):
        class_indices(labels)


@given(st.lists(st.lists(st.integers(0, 5), min_size=4, max_size=4), min_size=1, max_size=6))
def test_indices_and_labels_are_each_others_reverse(drawn: list[list[int]]) -> None:
    indices = np.array(drawn)
    labels = class_labels(indices, classes=5)
    for clip, second in np.ndindex(indices.shape):
        index = indices[clip, second]
        assert np.flatnonzero(labels[clip, second]).tolist() == ([] if index == 5 else [index])
    np.testing.assert_array_equal(class_indices(labels), indices)


@given(st.data())
def test_accuracy_is_the_share_of_right_seconds_within_the_lengths(data: st.DataObject) -> None:
    clips = data.draw(st.integers(1, 5))
    grid = st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=clips, max_size=clips)
    predicted, truth = data.draw(grid), data.draw(grid)
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=clips, max_size=clips))
    right = [predicted[clip][second] == truth[clip][second] for clip in range(clips) for second in range(lengths[clip])]
    found = ave_accuracy(np.array(predicted), np.array(truth), lengths=np.array(lengths))
    assert found == pytest.approx(100 * sum(right) / len(right))


def test_accuracy_of_other_shapes_or_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="two arrays of one shape"):
        ave_accuracy(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="wanted one length a clip"):
        ave_accuracy(np.zeros((2, 3)), np.zeros((2, 3)), lengths=np.array([1]))
    with pytest.raises(ValueError, match="no second of any clip counts"):
        ave_accuracy(np.zeros((2, 3)), np.zeros((2, 3)), lengths=np.array([0, 0]))
    with pytest.raises(ValueError, match="indices should lie in 0 to 5"):
        class_labels(np.array([[6]]), classes=5)
    with pytest.raises(ValueError, match="wanted whole numbers of shape"):
        class_labels(np.array([[0.5]]), classes=5)


@pytest.fixture(scope="module")
def real(real_data: Path) -> Dataset:
    return read_ave(real_data / "ave")


@pytest.mark.real_data
def test_the_real_files_have_4143_samples_of_4097_videos_and_the_documented_background(real: Dataset) -> None:
    assert [real.splits.count(split) for split in ("train", "val", "test")] == [3339, 402, 402]
    assert len(set(real.video_ids)) == 4143
    assert len({name[:11] for name in real.video_ids}) == 4097
    background = ~real.audio_visual.any(axis=2)
    of = {split: background[np.array(real.splits) == split] for split in ("train", "val", "test")}
    assert [(int(seconds.sum()), seconds.size) for seconds in of.values()] == [(5631, 33390), (732, 4020), (715, 4020)]


@pytest.mark.real_data
def test_the_report_on_the_real_files_has_every_documented_oddity(real: Dataset) -> None:
    assert counts(real) == {
        "zero-length-row": 1,
        "video-of-several-rows": 45,
        "val-video-in-train": 10,
        "test-video-in-train": 8,
        "train-background": 5631,
        "val-background": 732,
        "test-background": 715,
    }
    several = next(finding.examples for finding in real.report if finding.code == "video-of-several-rows")
    assert sum(line.count(",") for line in several) == 46  # one video has three rows
    assert "0f_iTO5t3hU: rows 1759, 2978, 4113" in several


@pytest.mark.real_data
def test_classes_are_those_of_the_released_weak_labels_in_the_order_of_first_appearance(
    real: Dataset, real_data: Path
) -> None:
    with h5py.File(real_data / "ave" / "mil_labels.h5") as file:
        released = file["avadataset"][:]
    np.testing.assert_array_equal(released[:, :28] > 0, real.weak)
    assert not released[:, BACKGROUND].any()
    lines = (real_data / "ave" / "Annotations.txt").read_text().splitlines()
    assert tuple(dict.fromkeys(line.split("&")[0] for line in lines)) == OFFICIAL == real.classes


@pytest.mark.real_data
@pytest.mark.parametrize("order", ["official", "uwav"])
def test_trivial_predictions_on_the_real_test_split_score_as_documented(real_data: Path, order: Any) -> None:
    real = read_ave(real_data / "ave", class_order=order)
    test = np.array(real.splits) == "test"
    truth = class_indices(real.audio_visual[test])
    nothing = np.full_like(truth, BACKGROUND)
    everywhere = class_indices(np.repeat(real.weak[test][:, None], 10, axis=1))
    assert int((nothing == truth).sum()) == 715
    assert round(ave_accuracy(nothing, truth), 1) == 17.8
    assert round(ave_accuracy(everywhere, truth), 1) == 82.2
