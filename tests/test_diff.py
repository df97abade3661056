"""What sets two artifacts apart: how they were made and why, array by array; labels by class and by clip."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from avvp_pipe.store import Store, StoreError
from avvp_pipe.store.diff import Comparison, compare, diff_values
from avvp_pipe.store.diff_labels import diff_labels
from avvp_pipe.store.lineage import lineage
from avvp_pipe.store.rows import BLOCK_BYTES, block_rows, spans

Make = Callable[..., Any]
MODALITIES = ("audio", "visual")


def compared(store: Store, a: Any, b: Any, other: Store | None = None) -> Comparison:
    return compare(a, b, (lineage(store, a), lineage(other or store, b)))


def labels_arrays(
    ids: list[str], hard: dict[str, Any], lengths: Any, thresholds: Any, soft: dict[str, Any] | None = None
) -> dict[str, Any]:
    found: dict[str, Any] = {"video_ids": ids, "lengths": np.asarray(lengths, np.int32)}
    for modality in MODALITIES:
        found[f"{modality}_hard"] = hard[modality]
        found[f"{modality}_thresholds"] = np.asarray(thresholds, np.float32)
        if soft:
            found[f"{modality}_soft"] = soft[modality]
    return found


@st.composite
def label_sets(draw: st.DrawFn) -> dict[str, Any]:
    """Labels of up to five of six clips, up to three of four classes, one to three seconds, in any order."""
    ids = draw(st.lists(st.sampled_from([f"clip{place}" for place in range(6)]), max_size=5, unique=True))
    classes = draw(st.lists(st.sampled_from(["Bell", "Clock", "Drum", "Frog"]), min_size=1, max_size=3, unique=True))
    seconds = draw(st.integers(1, 3))
    shape = (len(ids), seconds, len(classes))
    halves = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    lengths = draw(st.lists(st.integers(0, seconds), min_size=len(ids), max_size=len(ids)))
    thresholds = draw(st.lists(st.sampled_from([-np.inf, 0.5, 1.5]), min_size=len(classes), max_size=len(classes)))
    hard = {modality: draw(hnp.arrays(bool, shape)) for modality in MODALITIES}
    soft = {modality: draw(hnp.arrays(np.float32, shape, elements=halves)) for modality in MODALITIES}
    return {"classes": classes, **labels_arrays(ids, hard, lengths, thresholds, soft)}


def made_of(make: Make, store: Store, labels: dict[str, Any]) -> Any:
    arrays = {name: data for name, data in labels.items() if name != "classes"}
    return make(store, "labels/a", arrays=arrays, classes=labels["classes"])


def by_loops(a: dict[str, Any], b: dict[str, Any]) -> tuple[dict[tuple[str, str], Any], dict[str, Any]]:
    """(modality, class) -> counts, thresholds, soft difference; clip -> the changes. One label at a time."""
    classes: dict[tuple[str, str], Any] = {}
    clips: dict[str, Any] = {}
    for modality in MODALITIES:
        for name in (one for one in a["classes"] if one in b["classes"]):
            c, d = a["classes"].index(name), b["classes"].index(name)
            counts, apart = [0, 0, 0, 0], []
            for i, video_id in enumerate(a["video_ids"]):
                if video_id not in b["video_ids"]:
                    continue
                j, only = b["video_ids"].index(video_id), ([], [])  # type: ignore[var-annotated]
                for second in range(max(a["lengths"][i], b["lengths"][j], 0)):
                    in_a, in_b = second < a["lengths"][i], second < b["lengths"][j]
                    left = in_a and a[f"{modality}_hard"][i, second, c]
                    right = in_b and b[f"{modality}_hard"][j, second, d]
                    counts = [counts[0] + left, counts[1] + right, *counts[2:]]
                    if left != right:
                        counts[2 if left else 3] += 1
                        only[0 if left else 1].append(second)
                    if in_a and in_b:
                        apart.append(
                            float(abs(a[f"{modality}_soft"][i, second, c] - b[f"{modality}_soft"][j, second, d]))
                        )
                if only[0] or only[1]:
                    clips.setdefault(video_id, []).append((modality, name, tuple(only[0]), tuple(only[1])))
            thresholds = a[f"{modality}_thresholds"][c], b[f"{modality}_thresholds"][d]
            classes[modality, name] = (*counts, *thresholds, float(np.mean(apart)) if apart else None)
    return classes, clips


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label_sets(), label_sets())
def test_labels_differ_as_counted_one_label_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, make_artifact: Make, a: dict[str, Any], b: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("labels")
    found = diff_labels(*(made_of(make_artifact, Store(folder / side), one) for side, one in (("a", a), ("b", b))))
    classes, clips = by_loops(a, b)
    assert found.shared_clips == len(set(a["video_ids"]) & set(b["video_ids"]))
    assert found.clips_only_a == tuple(one for one in a["video_ids"] if one not in b["video_ids"])
    assert found.clips_only_b == tuple(one for one in b["video_ids"] if one not in a["video_ids"])
    assert found.classes_only_a == tuple(one for one in a["classes"] if one not in b["classes"])
    assert found.classes_only_b == tuple(one for one in b["classes"] if one not in a["classes"])
    told = {
        (one.modality, one.name): (one.a, one.b, one.only_a, one.only_b, one.a_threshold, one.b_threshold, one.soft)
        for one in found.classes
    }
    assert told == classes
    for one in found.classes:
        both = one.a - one.only_a
        assert one.agreement == (both / (both + one.only_a + one.only_b) if one.a or one.b else 1.0)
    changed = {
        clip.video_id: [(one.modality, one.name, one.only_a, one.only_b) for one in clip.changes]
        for clip in found.clips
    }
    assert {clip: sorted(one) for clip, one in changed.items()} == {clip: sorted(one) for clip, one in clips.items()}
    sizes = [clip.differing for clip in found.clips]
    assert sizes == sorted((sum(len(c) + len(d) for _, _, c, d in one) for one in clips.values()), reverse=True)


@given(st.data())
def test_values_differ_as_counted_one_by_one(data: st.DataObject) -> None:
    elements = st.sampled_from([0.0, 1.0, -2.5, np.nan, np.inf, -np.inf])
    shape = data.draw(hnp.array_shapes(max_dims=2, max_side=4))
    a, b = (data.draw(hnp.arrays(np.float64, shape, elements=elements)) for _ in range(2))
    count, largest = 0, 0.0
    for left, right in zip(a.ravel(), b.ravel(), strict=True):
        if left == right or (np.isnan(left) and np.isnan(right)):
            continue
        count += 1
        if not (np.isnan(left) or np.isnan(right)):
            largest = max(largest, abs(left - right))
    assert diff_values(a, b) == (count, largest)


def test_unsigned_numbers_are_subtracted_without_wrapping() -> None:
    assert diff_values(np.array([0, 255], np.uint8), np.array([255, 255], np.uint8)) == (1, 255.0)


def test_arrays_read_in_blocks_give_what_the_whole_arrays_give(
    tmp_path: Path, make_artifact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    random, store = np.random.default_rng(0), Store(tmp_path)
    first = random.random((37, 3), np.float32)
    second = np.where(random.random((37, 3)) < 0.3, 0, first)
    made = []
    for name, values, text in (("a", first, ["p", "q"]), ("b", second, ["p", "r"])):
        arrays = {"x": values, "text": text, "none": np.zeros((0, 2)), "single": np.array(1.0)}
        made.append(make_artifact(store, f"features/{name}", params={"name": name}, arrays=arrays))
    read: list[tuple[int, int]] = []

    def in_small_blocks(count: int, size: int) -> Iterator[tuple[int, int]]:
        for span in spans(count, 5):
            read.append(span)
            yield span

    whole = compared(store, *made)
    monkeypatch.setattr("avvp_pipe.store.diff.spans", in_small_blocks)
    assert compared(store, *made) == whole
    assert (35, 37) in read
    found = {one.name: one for one in whole.arrays}
    assert (found["x"].differing, found["x"].largest) == (int((first != second).sum()), float((first - second).max()))
    assert (found["text"].differing, found["text"].largest) == (1, None)
    assert found["none"].equal
    assert found["single"].equal


def test_a_block_is_whole_chunks_and_bounded_however_many_rows_there_are() -> None:
    few, many = (zarr.zeros((rows, 1000), chunks=(16, 1000), dtype="float32") for rows in (100, 10**9))
    assert block_rows(few) == block_rows(many)
    assert block_rows(many) % 16 == 0
    assert block_rows(many) * 4000 <= BLOCK_BYTES
    assert block_rows(many, zarr.zeros((10**9, 10**6), chunks=(100, 10**6), dtype="float32")) == 100


def test_shapes_types_and_missing_arrays_are_told_apart(tmp_path: Path, make_artifact: Make) -> None:
    store = Store(tmp_path)
    ones = np.ones((2, 3), np.float32)
    a = make_artifact(store, "features/a", arrays={"shape": ones, "type": ones, "only_a": ones, "text": ["1", "2"]})
    others = {"shape": ones[:1], "type": ones.astype(np.float16), "only_b": ones, "text": np.ones(2)}
    b = make_artifact(store, "features/b", params={"k": 1}, arrays=others)
    found = {one.name: one for one in compared(store, a, b).arrays}
    assert not any(one.equal for one in found.values())
    assert (found["only_a"].b, found["only_b"].a) == (None, None)
    assert (found["shape"].differing, found["text"].differing) == (None, None)
    assert found["type"].differing == 0
    assert found["type"].a is not None
    assert (found["type"].a.dtype, found["type"].a.shape) == ("float32", (2, 3))


@pytest.fixture
def two_makings(tmp_path: Path, make_artifact: Make) -> tuple[Store, Any, Any]:
    """Labels whose datasets differ in a source, two steps back, and whose features differ for that alone."""
    store, made = Store(tmp_path / "store"), []
    for version in ("1", "2"):
        dataset = make_artifact(store, "dataset/d", sources={"a.csv": version * 12}, arrays={"x": [version]})
        features = make_artifact(store, "features/f", inputs={"dataset": dataset}, params={"dim": 4})
        inputs = {"dataset": dataset, "features": features}
        made.append(make_artifact(store, "labels/l", inputs=inputs, arrays={"x": ["same"]}, software={"zarr": version}))
    return store, *made


def test_differing_inputs_are_followed_to_their_source(two_makings: tuple[Store, Any, Any]) -> None:
    store, a, b = two_makings
    found = compared(store, a, b)
    lines = {cause.role: cause.lines for cause in found.causes}
    assert lines["dataset"] == (f"source a.csv: {'1' * 12} -> {'2' * 12}",)
    assert lines["features"][0].startswith("input dataset: ")
    assert len(found.causes) == 2
    assert (found.same, found.same_content, found.software) == (False, True, ("zarr: 1 -> 2",))


def test_an_input_of_which_no_record_is_left_is_said_to_be_so(two_makings: tuple[Store, Any, Any]) -> None:
    store, a, b = two_makings
    gone = store.get(a.provenance["inputs"]["dataset"])
    store.discard(gone)
    lines = {cause.role: cause.lines for cause in compared(store, a, b).causes}
    assert lines["dataset"] == (f"no record of {gone.reference} is left",)


def test_software_alone_is_no_difference(tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]) -> None:
    for side in ("a", "b"):
        make_artifact(Store(tmp_path / side), "labels/l", arrays={"x": np.array([np.nan])}, software={"numpy": side})
    ran = avvp("diff", "labels/l", "labels/l", "--store", tmp_path / "a", "--other-store", tmp_path / "b", "--json")
    assert (ran.code, ran.document["same"], ran.document["software"]) == (0, True, ["numpy: a -> b"])


def test_other_attributes_are_a_difference(tmp_path: Path, make_artifact: Make) -> None:
    stores = Store(tmp_path / "a"), Store(tmp_path / "b")
    a, b = (make_artifact(store, "labels/l", method=place) for place, store in enumerate(stores))
    found = compared(stores[0], a, b, stores[1])
    assert (found.same, found.attributes) == (False, {"method": (0, 1)})


def test_kinds_are_not_compared_with_each_other(tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]) -> None:
    for reference in ("labels/l", "scores/l"):
        make_artifact(Store(tmp_path), reference)
    ran = avvp("diff", "labels/l", "scores/l", "--store", tmp_path)
    assert (ran.code, "two kinds" in ran.err) == (2, True)


def test_an_id_that_occurs_twice_and_shapes_that_do_not_fit_are_refused(tmp_path: Path, make_artifact: Make) -> None:
    store = Store(tmp_path)
    hard = {modality: np.zeros((2, 1, 1), bool) for modality in MODALITIES}
    good = make_artifact(store, "labels/a", classes=["Bell"], arrays=labels_arrays(["a", "b"], hard, [1, 1], [0]))
    wrong = {
        "names the clip 'a' twice": (["Bell"], labels_arrays(["a", "a"], hard, [1, 1], [0])),
        "audio_hard of .* has shape": (["Bell", "Drum"], labels_arrays(["a", "b"], hard, [1, 1], [0, 0])),
        "lengths of .* has shape": (["Bell"], labels_arrays(["a", "b"], hard, [1], [0])),
        "audio_thresholds of .* one per class": (["Bell"], labels_arrays(["a", "b"], hard, [1, 1], [0, 0])),
    }
    for place, (message, (classes, arrays)) in enumerate(wrong.items()):
        made = make_artifact(store, "labels/a", params={"place": place}, classes=classes, arrays=arrays)
        with pytest.raises(StoreError, match=message):
            diff_labels(good, made)


def test_the_command_shows_the_worst_clips_with_seconds_and_classes_and_json_shows_all(
    tmp_path: Path, make_artifact: Make, avvp: Callable[..., Any]
) -> None:
    store, ids = Store(tmp_path), ["quiet", "loud", "same"]
    before = {modality: np.zeros((3, 4, 2), bool) for modality in MODALITIES}
    after = {modality: values.copy() for modality, values in before.items()}
    after["audio"][0, 2, 0] = after["audio"][1, 1:3, 0] = after["visual"][1, 0, 1] = True
    a = make_artifact(store, "labels/l", classes=["Bell", "Drum"], arrays=labels_arrays(ids, before, [4] * 3, [0, 0]))
    b = make_artifact(
        store, "labels/l", params={"k": 1}, classes=["Bell", "Drum"],
        arrays=labels_arrays(ids, after, [4] * 3, [-np.inf, 0]),
    )  # fmt: skip
    arguments = ("diff", a.reference, b.reference, "--store", tmp_path)
    ran = avvp(*map(str, arguments), "--clips", "1")
    assert ran.code == 1
    assert "parameter k: unset -> 1" in ran.out
    assert "  loud: 3 labels differ\n    audio Bell: only B at 1, 2 s\n    visual Drum: only B at 0 s\n" in ran.out
    assert "quiet" not in ran.out
    assert "… and 1 more" in ran.out
    document = avvp(*map(str, arguments), "--json").document
    assert [clip["video_id"] for clip in document["labels"]["clips"]] == ["loud", "quiet"]
    bell = document["labels"]["classes"][0]
    assert (bell["name"], bell["b"], bell["only_b"], bell["agreement"]) == ("Bell", 3, 3, 0.0)
    assert (bell["a_threshold"], bell["b_threshold"], bell["soft"]) == (0.0, "-inf", None)


def test_labels_and_predictions_of_the_demo_are_compared_class_by_class(
    finished_demo: Any, avvp: Callable[..., Any]
) -> None:
    where = ("--store", finished_demo.store, "--json")
    same = avvp("diff", "labels/uwav", "labels/uwav", *where)
    assert (same.code, same.document["labels"]["clips"]) == (0, [])
    for pair in (("labels/valor", "labels/uwav"), ("parser/hard", "parser/full")):
        ran = avvp("diff", *pair, *where)
        assert ran.code == 1
        assert {one["modality"] for one in ran.document["labels"]["classes"]} == set(MODALITIES)
        assert all(one["soft"] is not None for one in ran.document["labels"]["classes"])
