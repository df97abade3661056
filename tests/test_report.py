"""A report shows what the store holds: gathered by hand-checked rules, packed without loss, and safe from strangers."""

import base64
import io
import itertools
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from avvp_pipe.pipeline.report import render as rendering
from avvp_pipe.pipeline.report.clips import HARD, SOFT, chosen_rows, clip_data, coded, consensus_distance, distance
from avvp_pipe.pipeline.report.curves import curves_of, history_of, thinned
from avvp_pipe.pipeline.report.gather import Wanted, titles_of
from avvp_pipe.pipeline.report.packing import contents, packed
from avvp_pipe.pipeline.report.pictures import BANDS, BANDS_HIGH, pictures_of, spectrogram
from avvp_pipe.pipeline.report.records import ClipData, Report
from avvp_pipe.pipeline.report.render import policy, render
from avvp_pipe.pipeline.report.scores import recipes_of, score_tables
from avvp_pipe.pipeline.report.sources import source_of
from avvp_pipe.pipeline.report.subjects import subjects_of
from avvp_pipe.pipeline.report.svg import said
from avvp_pipe.pipeline.report.write import make_report, write_page
from avvp_pipe.stages.stage import ParameterError, Silent
from avvp_pipe.store import Artifact, ArtifactNotFoundError, Reference, Store, StoreError, parse_reference
from tests.report_world import HOSTILE, Shape, build, world

Found = dict[str, Artifact]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Found]:
    store = Store(tmp_path_factory.mktemp("report"))
    return store, world(store, Shape(clips=9, failed=frozenset({4})))


def report_of(store: Store, *references: str, **wanted: Any) -> Report:
    return make_report(store, Wanted(tuple(references), **wanted), made="now", progress=Silent())


# Which artifacts


def test_a_dataset_brings_all_that_was_made_of_it(made: tuple[Store, Found]) -> None:
    store, found = made
    subjects = subjects_of(store, ["dataset/world"])
    assert {str(one.reference) for one in subjects.artifacts} == {str(one.reference) for one in found.values()}
    assert subjects.dataset is not None
    assert subjects.dataset.key == found["dataset"].key


def test_labels_bring_what_they_were_made_of_and_their_scores_and_nothing_else(made: tuple[Store, Found]) -> None:
    store, found = made
    subjects = subjects_of(store, ["labels/second"])
    wanted = {"dataset", "media", "second", "scores-second"}
    assert {str(one.reference) for one in subjects.artifacts} == {str(found[name].reference) for name in wanted}


def test_scores_bring_the_labels_that_were_scored(made: tuple[Store, Found]) -> None:
    store, found = made
    sets = subjects_of(store, ["scores/parser"]).sets()
    assert [str(one.reference) for one in sets] == [str(found["first"].reference), str(found["parser"].reference)]


def test_things_about_different_datasets_are_not_put_into_one_report(tmp_path: Path) -> None:
    store = Store(tmp_path)
    one = world(store, Shape(sets=("first",), side=0))
    other = world(store, Shape(sets=("second",), side=0, clips=7), seed=1)
    with pytest.raises(StoreError, match=r"one report shows the clips of one dataset, but .* Make a report of each"):
        subjects_of(store, [str(one["first"].reference), str(other["second"].reference)])


def test_what_is_not_there_is_told(made: tuple[Store, Found]) -> None:
    store, _ = made
    with pytest.raises(ArtifactNotFoundError, match="no artifact labels/third"):
        subjects_of(store, ["labels/third"])
    with pytest.raises(StoreError, match="a report of what"):
        subjects_of(store, [])


def test_sets_are_called_as_shortly_as_tells_them_apart(made: tuple[Store, Found], tmp_path: Path) -> None:
    _, found = made
    sets = [found["first"], found["second"], found["parser"]]
    assert list(titles_of(sets).values()) == ["first", "second", "parser pupil"]
    twin = build(Store(tmp_path), "labels", "first", {"a": np.zeros(1)}, {})
    assert titles_of([found["first"], twin])[str(twin.reference)] == f"first @{twin.key[:4]}"


# Labels of clips


def test_distance_is_one_minus_intersection_over_union_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.random((20, 2, 3)) < 0.4 for _ in range(2))
    first[0] = second[0] = False
    for row, came in enumerate(distance(first, second)):
        one, other = ({tuple(cell) for cell in np.argwhere(labels[row])} for labels in (first, second))
        assert came == pytest.approx(1 - len(one & other) / len(one | other) if one | other else 0)


def test_dispute_is_the_mean_distance_from_what_most_sets_say_by_a_loop() -> None:
    rng = np.random.default_rng(1)
    hard = [rng.random((10, 2, 4, 3)) < 0.4 for _ in range(4)]
    there = rng.random((4, 10)) < 0.8
    for row, came in enumerate(consensus_distance(hard, there)):
        sets = [labels[row] for labels, here in zip(hard, there[:, row], strict=True) if here]
        most = np.array([sum(one[cell] for one in sets) * 2 > len(sets) for cell in np.ndindex(2, 4, 3)]).reshape(
            2, 4, 3
        )
        wanted = [1 - (one & most).sum() / max((one | most).sum(), 1) if (one | most).any() else 0 for one in sets]
        assert came == pytest.approx(sum(wanted) / max(len(wanted), 1), abs=1e-6)


def test_clips_whose_seconds_are_labelled_are_shown_first_and_the_lot_depends_on_ids_alone() -> None:
    names, dense = [f"clip{row}" for row in range(20)], np.array([1] * 5 + [0] * 15)
    rows, told = chosen_rows(names, dense, 8)
    assert set(range(5)) < set(rows.tolist())
    assert rows.tolist() == sorted(rows.tolist())
    assert told == "8 of 20 clips: all whose seconds are labelled (5), and others drawn by lot"
    few, told = chosen_rows(names, dense, 3)
    assert told == "3 of 20 clips, drawn by lot from those whose seconds are labelled (5)"
    assert set(few.tolist()) < set(range(5))
    again, _ = chosen_rows(names[::-1], dense[::-1], 8)
    assert {names[row] for row in rows} == {names[::-1][row] for row in again}
    assert chosen_rows(names, dense, 20)[1] == "all clips"


@pytest.fixture(scope="module")
def data(made: tuple[Store, Found]) -> ClipData:
    _, found = made
    sets = [found["first"], found["second"], found["parser"]]
    data = clip_data(found["dataset"], sets, titles_of(sets), limit=2000, logits=True)
    assert data is not None
    return data


def test_cells_hold_hard_labels_and_soft_ones_to_a_hundredth(made: tuple[Store, Found], data: ClipData) -> None:
    _, found = made
    clip = np.repeat(np.arange(9), data.counts)
    for place, (name, soft) in enumerate((("first", "soft"), ("second", "soft"), ("parser", "probs")), start=1):
        for modality, which in enumerate(("audio", "visual")):
            hard = found[name].array(f"{which}_hard")[clip, :, data.entry_class]
            likely = found[name].array(f"{which}_{soft}")[clip, :, data.entry_class]
            np.testing.assert_array_equal(data.cells[place, :, modality] >= HARD, hard)
            np.testing.assert_allclose((data.cells[place, :, modality] & SOFT) / SOFT, likely, atol=0.5 / SOFT + 1e-6)
    truth = found["dataset"].array("audio")[clip, :, data.entry_class]
    np.testing.assert_array_equal(data.cells[0, :, 0] >= HARD, truth)


def test_a_clips_classes_are_those_that_are_named_true_called_or_likely(
    made: tuple[Store, Found], data: ClipData
) -> None:
    _, found = made
    dataset, first = found["dataset"], 0
    for row in range(9):
        wanted = set()
        for column in range(3):
            calls = [
                one.array(f"{m}_hard")[row, :, column].any()
                for one in (found["first"], found["second"], found["parser"])
                for m in ("audio", "visual")
            ]
            likely = [
                found[name].array(f"{m}_{soft}")[row, :, column].max() > 0.504
                for name, soft in (("first", "soft"), ("second", "soft"), ("parser", "probs"))
                for m in ("audio", "visual")
            ]
            named = dataset.array("weak")[row, column] or dataset.array("audio")[row, :, column].any()
            if named or any(calls) or (any(likely) and row != 4):
                wanted.add(column)
        came = data.entry_class[first : first + data.counts[row]].tolist()
        assert set(came) == wanted, row
        first += int(data.counts[row])


def test_distances_from_the_truth_are_known_where_the_truth_is(made: tuple[Store, Found], data: ClipData) -> None:
    _, found = made
    dense, labels = found["dataset"].array("dense"), found["second"]
    hard = np.stack([labels.array("audio_hard"), labels.array("visual_hard")], axis=1)
    true = np.stack([found["dataset"].array("audio"), found["dataset"].array("visual")], axis=1)
    for row in range(9):
        if dense[row] and row != 4:
            both, either = (hard[row] & true[row]).sum(), (hard[row] | true[row]).sum()
            assert data.distance[2, row] == pytest.approx(1 - both / either)
        else:
            assert np.isnan(data.distance[2, row])
    assert data.status[1:, 4].tolist() == [7, 7, 7]


def test_where_only_what_is_both_is_known_sets_are_held_against_it_by_their_product(tmp_path: Path) -> None:
    store, heard, seen = Store(tmp_path), np.zeros((1, 4, 1), bool), np.zeros((1, 4, 1), bool)
    heard[0, :3], seen[0, 1:] = True, True
    joint = np.zeros((1, 4, 1), bool)
    joint[0, 1] = True
    clips = {"video_ids": ["a"], "splits": ["val"], "weak": np.ones((1, 1), bool), "lengths": np.full(1, 4, np.int32)}
    nothing = np.zeros((1, 4, 1), bool)
    arrays = {**clips, "paths": [""], "dense": np.full(1, 2, np.uint8), "audio": nothing, "visual": nothing}
    dataset = build(store, "dataset", "joint", {**arrays, "audio_visual": joint}, {}, classes=["Dog"], report=[])
    hard = {"status": np.ones(1, np.uint8), "audio_hard": heard, "visual_hard": seen}
    soft = {"audio_soft": heard.astype(np.float32), "visual_soft": seen.astype(np.float32)}
    labels = build(store, "labels", "joint", {**clips, **hard, **soft}, {"dataset": dataset}, classes=["Dog"])
    data = clip_data(dataset, [labels], {}, limit=5, logits=True)
    assert data is not None
    assert data.distance[1, 0] == pytest.approx(0.5)  # both in seconds 2 and 3, true in 2
    assert (data.cells[0, 0, 0] >= HARD).tolist() == (data.cells[0, 0, 1] >= HARD).tolist() == joint[0, :, 0].tolist()


def test_sets_with_classes_in_another_order_are_put_right_and_other_classes_are_refused(
    made: tuple[Store, Found], tmp_path: Path
) -> None:
    _, found = made
    store = Store(tmp_path)
    first, order = found["first"], [2, 0, 1]
    names = [name for name in first.array_names() if name not in ("video_ids", "splits")]
    arrays: dict[str, Any] = {name: first.array(name) for name in names}
    for name in arrays:
        if arrays[name].ndim == 3:
            arrays[name] = arrays[name][:, :, order]
    arrays |= {
        "weak": arrays["weak"][:, order],
        "video_ids": first.strings("video_ids"),
        "splits": first.strings("splits"),
    }
    for suffix in ("audio_thresholds", "visual_thresholds"):
        arrays[suffix] = arrays[suffix][order]
    turned = build(store, "labels", "turned", arrays, {}, classes=[first.attrs["classes"][place] for place in order])
    both = clip_data(found["dataset"], [first, turned], {}, limit=2000, logits=True)
    assert both is not None
    np.testing.assert_array_equal(both.cells[1], both.cells[2])
    np.testing.assert_array_equal(both.logits[1], both.logits[2])
    assert both.sets[1].thresholds == both.sets[2].thresholds == ((0.0, "never", "always"),) * 2
    others = build(store, "labels", "others", arrays, {}, classes=["A", "B", "C"])
    with pytest.raises(StoreError, match="other classes"):
        clip_data(found["dataset"], [others], {}, limit=5, logits=False)


def test_labels_without_their_dataset_are_shown_without_truth(made: tuple[Store, Found]) -> None:
    _, found = made
    data = clip_data(None, [found["first"]], {}, limit=2000, logits=False)
    assert data is not None
    assert [one.kind for one in data.sets] == ["labels"]
    assert np.isnan(data.distance).all()
    assert not data.known.any()


def unpacked(text: str, table: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """As the page reads it."""
    raw = zlib.decompress(base64.b64decode(text))
    return {one["name"]: np.frombuffer(raw, one["type"], one["items"], one["offset"]) for one in table}


def test_what_is_packed_comes_out_again(made: tuple[Store, Found], data: ClipData) -> None:
    text, table = packed(data)
    assert all(one["offset"] % 2 == 0 for one in table)
    found = unpacked(text, table)
    for name in ("lengths", "counts", "entry_class", "known", "status", "cells"):
        np.testing.assert_array_equal(found[name].reshape(getattr(data, name).shape), getattr(data, name))
    logits = found["logits1"].view(np.float16).reshape(data.logits[1].shape)
    clip = np.repeat(np.arange(9), data.counts)
    wanted = made[1]["first"].array("audio_logits")[clip, :, data.entry_class]
    np.testing.assert_allclose(logits[:, 0].astype(np.float32), wanted, rtol=1e-3, atol=1e-3)


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 1)), min_size=1, max_size=50))
def test_one_byte_keeps_the_hard_label_whatever_the_soft_one(cells: list[tuple[bool, float]]) -> None:
    hard, soft = np.array([one for one, _ in cells]), np.array([one for _, one in cells])
    codes = coded(hard, soft)
    np.testing.assert_array_equal(codes >= HARD, hard)
    np.testing.assert_allclose((codes & SOFT) / SOFT, soft, atol=0.5 / SOFT + 1e-6)


# Scores, curves, quality


def test_scores_are_those_of_the_artifacts_with_the_baselines_below_and_the_best_marked(
    made: tuple[Store, Found],
) -> None:
    store, found = made
    tables = report_of(store, "dataset/world", pictures=False).tables
    assert [table.split for table in tables] == ["test", "val"]
    for table in tables:
        rows = {row.title: row for row in table.rows}
        assert list(rows)[-2:] == ["video labels everywhere", "predict nothing"]
        for name, title in (("first", "first"), ("second", "second"), ("parser", "parser pupil")):
            of = next(one for one in found[f"scores-{name}"].attrs["scores"] if one["split"] == table.split)["of"]
            assert rows[title].segment["Type"] == of["segment"]["Type"]
            assert rows[title].event["A"] == of["event"]["A"]
        measured = [row for row in table.rows if row.reference]
        top = max(row.segment["A"] or 0 for row in measured)
        assert {row.title for row in table.rows if ("segment", "A") in row.best} == {
            row.title for row in measured if round(row.segment["A"] or 0, 1) == round(top, 1)
        }


def test_published_numbers_stand_beside_where_a_recipe_is_named_or_made_the_scores(
    made: tuple[Store, Found],
) -> None:
    _, found = made
    assert not any(row.published for table in score_tables([found["scores-first"]], {}) for row in table.rows)
    named = score_tables([found["scores-first"], found["scores-second"]], {}, ["valor"])
    rows = [row for table in named if table.split == "val" for row in table.rows if row.published]
    assert [row.segment["A"] for row in rows] == [80.8, 80.78]
    assert "Table S-XI" in rows[0].note
    assert "measured on 3, published on 649" in rows[0].note
    with pytest.raises(ParameterError, match="no recipe 'valour'"):
        score_tables([found["scores-first"]], {}, ["valour"])


def test_numbers_published_on_other_clips_are_not_shown_unasked(made: tuple[Store, Found]) -> None:
    """Scores of one's own clips may be called as a recipe calls them, too."""
    _, found = made
    home = parse_reference(found["scores-first"].provenance["inputs"]["dataset"]).name
    named = replace(found["scores-first"], reference=Reference("scores", f"{home}-valor"))
    assert [recipe.name for recipe in recipes_of(named)] == ["valor"]
    assert not any(row.published for table in score_tables([named], {}) for row in table.rows)
    assert any(row.published for table in score_tables([named], {}, ["valor"]) for row in table.rows)


def test_f_and_label_rates_of_every_class_are_counted_over_seconds(made: tuple[Store, Found]) -> None:
    store, found = made
    report = report_of(store, "labels/second", pictures=False)
    table = next(one for one in report.class_scores if one.title == "test: F of what is heard")
    dataset, labels = found["dataset"], found["second"]
    rows = [row for row, split in enumerate(dataset.strings("splits")) if split == "test" and row != 4]
    for column, values in enumerate(table.values):
        true, hard = dataset.array("audio")[rows][:, :, column], labels.array("audio_hard")[rows][:, :, column]
        right, either = (true & hard).sum(), true.sum() + hard.sum()
        assert values[0] == (None if not either else pytest.approx(200 * right / either))
    rate = next(one for one in report.rates if one.title.startswith("test") and "heard" in one.title)
    assert rate.columns == ("truth", "second")
    for column, values in enumerate(rate.values):
        weak = dataset.array("weak")[rows][:, column]
        if weak.any():
            assert values[1] == pytest.approx(100 * labels.array("audio_hard")[rows][weak][:, :, column].mean())


@given(
    st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 1)), min_size=1, max_size=300, unique_by=lambda one: one[0]),
    st.integers(2, 40),
)
def test_a_thinned_curve_is_part_of_the_curve_with_its_best_point_and_its_ends(
    points: list[tuple[float, float]], limit: int
) -> None:
    x, y = (np.array(one) for one in zip(*points, strict=True))
    kept_x, kept_y = thinned(x, y, limit)
    assert len(kept_x) <= limit + 2
    assert set(zip(kept_x.tolist(), kept_y.tolist(), strict=True)) <= set(points)
    assert kept_y.max() == y.max()
    assert (kept_x[0], kept_x[-1]) == (x.min(), x.max())
    assert (np.diff(kept_x) > 0).all()


def test_curves_tell_the_chosen_point_its_spread_and_classes_without_positives(made: tuple[Store, Found]) -> None:
    curves = curves_of(made[1]["thresholds"], "first")
    bell, dog = curves.classes[0], curves.classes[1]
    assert (bell.chosen, bell.chosen_f1, bell.spread) == (0.0, 80.0, (-0.5, 0.5))
    assert max(bell.f1) == pytest.approx(80.0)
    assert (dog.thresholds, dog.chosen, dog.chosen_f1) == ((), np.inf, None)
    assert said(bell, (5, 95)) == "Bell, heard: threshold 0, F1 80.0 %; percentiles 5 to 95 of draws: -0.5 to 0.5"
    assert said(dog, ()).startswith("Dog, heard: never labelled")


def test_the_history_of_a_training_is_told_apart_from_its_scores(made: tuple[Store, Found]) -> None:
    found = history_of(made[1]["parser"], "pupil")
    assert found is not None
    assert found.losses == {"loss": (0.7, 0.5, 0.4, 0.35)}
    assert found.scores == {"val_Type": (30.0, 50.0, 60.0, 55.0)}
    assert (found.best_epoch, found.selected_by) == (3, "val_Type")
    assert history_of(made[1]["first"], "") is None


def test_findings_failures_and_origin_are_told(made: tuple[Store, Found]) -> None:
    store, found = made
    report = report_of(store, "labels/first", pictures=False)
    assert report.quality is not None
    assert report.quality.clips == {"val": 3, "test": 3, "train": 3}
    assert report.quality.labelled == {"val": 3, "test": 3, "train": 0}
    assert report.quality.findings[0][:2] == ("odd-times", 2)
    assert [(one.reference, one.counts) for one in report.quality.failures] == [
        (str(found["media"].reference), {"corrupt": 1})
    ]
    origins = {one.reference: one for one in report.origins}
    labels = origins[str(found["first"].reference)]
    assert labels.inputs["thresholds"] == str(found["thresholds"].reference)
    assert labels.params == {"made": "first"}
    assert set(origins) == {reference for _, reference in report.shown}


# Pictures


def test_each_picture_has_one_frame_a_second_above_the_sound(made: tuple[Store, Found]) -> None:
    store, found = made
    pictures = report_of(store, "labels/first").pictures
    assert [place for place, strip in enumerate(pictures.strips) if not strip] == [4]
    assert pictures.reasons[4] == "it could not be decoded (corrupt)"
    image = np.asarray(Image.open(io.BytesIO(pictures.strips[0])).convert("RGB")).astype(float)
    side = image.shape[1] // 10
    assert image.shape == (side + BANDS_HIGH, 10 * side, 3)
    frames = found["media"].rows("frames", 0)
    for second in range(10):
        shown = image[:side, second * side : (second + 1) * side].mean(axis=(0, 1))
        np.testing.assert_allclose(shown, frames[second].mean(axis=(0, 1)), atol=6)
    sound = image[side:].mean(axis=(0, 2)).reshape(10, side)[:, side // 4 : -side // 4].mean(axis=1)
    assert sound[::2].min() > 3 * sound[1::2].max() + 5  # the tone is in even seconds


def test_pictures_keep_to_their_room_and_say_which_clips_have_none(made: tuple[Store, Found]) -> None:
    store, found = made
    source = source_of(store, found["dataset"], found["media"], [], found["dataset"].strings("video_ids"))
    assert source is not None
    pictures = pictures_of(source, room_bytes=3000, progress=Silent())
    taken = sum(len(base64.b64encode(strip)) for strip in pictures.strips)
    assert 0 < taken <= 3000
    left_out = [reason for strip, reason in zip(pictures.strips, pictures.reasons, strict=True) if not strip]
    assert left_out.count("no room left in a file of this size (--max-bytes)") == len(left_out) - 1 > 0


def test_without_media_the_video_files_are_decoded_and_missing_ones_named(finished_demo: Any, tmp_path: Path) -> None:
    store = Store(finished_demo.store)
    dataset = store.get("dataset/target")
    names = dataset.strings("video_ids")[:2]
    source = source_of(store, dataset, None, [], names)
    assert source is not None
    assert source.reasons == ("", "")
    (_, footage), _ = source.footage([0, 1])
    assert not isinstance(footage, str)
    assert footage.frames.shape == (10, 112, 112, 3)
    assert footage.frames.std() > 5
    assert len(footage.samples) == 10 * footage.rate
    lacking = build(Store(tmp_path), "dataset", "lacking", _moved(dataset), {}, location=str(tmp_path))
    gone = source_of(store, lacking, None, [], names)
    assert gone is not None
    assert gone.reasons == ("its video file is not where the dataset says",) * 2


def _moved(dataset: Artifact) -> dict[str, Any]:
    texts = {name: dataset.strings(name) for name in ("video_ids", "paths")}
    return {**texts, "lengths": dataset.array("lengths")}


def test_a_tone_lies_in_the_band_of_its_pitch_and_silence_is_dark() -> None:
    rate = 16000
    pitch = {}
    for hertz in (200, 1000, 5000):
        tone = np.sin(2 * np.pi * hertz * np.arange(rate) / rate)
        picture = spectrogram(tone, rate, 20)
        assert picture.shape == (BANDS, 20)
        pitch[hertz] = int(picture.sum(axis=1).argmax())
    assert pitch[200] > pitch[1000] > pitch[5000]  # high pitches stand above
    assert not spectrogram(np.zeros(rate), rate, 20).any()
    assert not spectrogram(np.zeros(0), rate, 20).any()


# The page


class Elements(HTMLParser):
    """All elements of a page, and the text within scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attrs = self.found[-1] if self.found else ("", {})
        if tag == "script":
            self.text.setdefault(str(attrs.get("id")), data)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    store = Store(tmp_path_factory.mktemp("hostile"))
    ids = tuple(f"{HOSTILE}{row}" for row in range(6))
    world(store, Shape(classes=(HOSTILE, "<!--", "]]>"), ids=ids, failed=frozenset({1})))
    report = report_of(store, "dataset/world")
    return report, render(report)


def test_names_of_strangers_do_not_become_elements(hostile: tuple[Report, str]) -> None:
    report, page = hostile
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 4
    assert "img" not in tags
    assert not any(name.startswith("on") or name == "style" for _, attrs in elements.found for name in attrs)
    assert report.clips is not None
    about = json.loads(elements.text["contents"])
    assert about["ids"] == list(report.clips.video_ids)
    assert about["classes"] == list(report.clips.classes)
    assert "<" not in elements.text["contents"]


def test_nothing_on_the_page_is_fetched_from_elsewhere(hostile: tuple[Report, str]) -> None:
    elements = Elements(hostile[1])
    links = [attrs.get(name) or "" for _, attrs in elements.found for name in ("src", "href") if name in attrs]
    assert links
    assert {link.partition(":")[0] if not link.startswith("#") else "#" for link in links} == {"#", "data"}
    ids = [attrs["id"] for _, attrs in elements.found if attrs.get("id")]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_the_policy_allows_the_pages_own_script_and_style_and_no_other(hostile: tuple[Report, str]) -> None:
    page = hostile[1]
    told = next(attrs for _, attrs in Elements(page).found if attrs.get("http-equiv") == "Content-Security-Policy")
    script = page[page.rindex("<script>") + len("<script>") : page.rindex("</script>")]
    style = page[page.index("<style>") + len("<style>") : page.index("</style>")]
    assert told["content"] == policy(script, style)
    assert (told["content"] or "").startswith("default-src 'none'; img-src data:; script-src 'sha256-")


def test_pictures_and_charts_have_words(hostile: tuple[Report, str]) -> None:
    charts = [attrs for tag, attrs in Elements(hostile[1]).found if tag == "svg"]
    assert charts
    assert all(attrs.get("aria-label") or attrs.get("aria-hidden") == "true" for attrs in charts)
    headings = [int(tag[1]) for tag, _ in Elements(hostile[1]).found if tag in ("h1", "h2", "h3")]
    assert headings[0] == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(headings))


@pytest.mark.parametrize("limit", [120_000, 180_000])
def test_the_file_keeps_to_the_bytes_asked_for(tmp_path: Path, limit: int) -> None:
    store = Store(tmp_path)
    world(store, Shape(clips=250, sets=("first",), side=8))
    report = report_of(store, "labels/first", "parser/pupil", max_bytes=limit)
    assert len(render(report).encode()) <= limit
    assert report.clips is not None
    assert report.notes or not all(report.pictures.strips)
    whole = report_of(store, "labels/first", "parser/pupil", pictures=False)
    assert whole.clips is not None
    assert len(whole.clips.video_ids) == 250 >= len(report.clips.video_ids)
    assert whole.notes == ()


def test_a_page_is_written_whole_or_not_at_all(
    hostile: tuple[Report, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "report.html"
    assert write_page(path, hostile[0]) == path.stat().st_size
    before = path.read_bytes()
    monkeypatch.setattr(rendering, "_text", lambda name: "{{ undefined_name }}")
    with pytest.raises(Exception, match="undefined_name"):
        write_page(path, hostile[0])
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


# The command


def test_the_command_tells_what_it_wrote(made: tuple[Store, Found], avvp: Callable[..., Any], tmp_path: Path) -> None:
    store, _ = made
    out = tmp_path / "report.html"
    ran = avvp("report", "labels/first", "--out", out, "--store", str(store.root), "--clips", "5", "--json", "--quiet")
    assert ran.code == 0, ran.err
    told = ran.document
    assert set(told) == {"report", "bytes", "artifacts", "clips", "pictures", "without_pictures", "notes"}
    assert told["bytes"] == out.stat().st_size
    assert told["clips"] == 5 == told["pictures"] + sum(told["without_pictures"].values())
    plain = avvp("report", "labels/first", "--out", out, "--store", str(store.root), "--no-pictures")
    assert "9 clips without pictures: pictures were not asked for (--no-pictures)" in plain.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("labels/none",), "no artifact labels/none"),
        (("nonsense",), "not an artifact reference"),
        (("labels/first", "--recipe", "valour"), "did you mean 'valor'"),
    ],
)
def test_wrong_words_are_told_and_leave_no_file(
    made: tuple[Store, Found], avvp: Callable[..., Any], tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    ran = avvp("report", *words, "--out", tmp_path / "report.html", "--store", str(made[0].root))
    assert ran.code == 2
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "report.html").exists()


def test_a_folder_is_not_written_over(made: tuple[Store, Found], avvp: Callable[..., Any], tmp_path: Path) -> None:
    ran = avvp("report", "labels/first", "--out", tmp_path, "--store", str(made[0].root), "--json")
    assert ran.code == 2
    assert "is a folder; give the file to write" in ran.document["error"]


def test_a_report_needs_neither_torch_nor_a_teacher(made: tuple[Store, Found], tmp_path: Path) -> None:
    code = (
        "import sys; from avvp_pipe.cli.main import app; "
        f"app(['report', 'dataset/world', '--out', {str(tmp_path / 'r.html')!r}, '--store', {str(made[0].root)!r}], "
        "standalone_mode=False); assert not {'torch', 'av', 'decord', 'open_clip'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert (tmp_path / "r.html").stat().st_size > 10_000


def test_contents_name_every_set_and_reason(made: tuple[Store, Found], data: ClipData) -> None:
    pictures = report_of(made[0], "dataset/world").pictures
    about = contents(data, packed(data)[1], pictures)
    assert [one["title"] for one in about["sets"]] == ["truth", "first", "second", "parser pupil"]
    assert [about["reasons"][place] for place in about["reason"]] == list(pictures.reasons)
    assert about["pictures"] == [len(base64.b64encode(strip)) for strip in pictures.strips]
