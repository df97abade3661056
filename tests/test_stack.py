"""`stack`: inputs as written down, weights recovered, clips judged by models that have not seen them."""

from __future__ import annotations

import doctest
import math
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.blocks import calibration_error
from avvp_pipe.stages.blocks.calibration_error import expected_calibration_error, reliability
from avvp_pipe.stages.calibrate import Params
from avvp_pipe.stages.generators import (
    FitSettings,
    Logits,
    stack,
    stack_inputs,
    stack_model,
    stack_presence,
    temporal,
    valor,
)
from avvp_pipe.stages.generators.records import Evidence, Fit, Generators, Labelled, SegmentFeatures, Texts
from avvp_pipe.stages.generators.stack import explained
from avvp_pipe.stages.generators.stack_fitted import stack_of
from avvp_pipe.stages.generators.stack_inputs import (
    KINDS,
    PRIOR_SECONDS,
    WIDTH,
    Cells,
    column,
    kinds_of,
    names_of,
    units_of,
)
from avvp_pipe.stages.generators.stack_model import Shrinkage, fit_model, folds_of, scores
from avvp_pipe.stages.generators.stack_presence import CLIP_CUTS, SECOND_CUTS, Presence, brought_down, choose
from avvp_pipe.stages.metrics import avvp_scores
from avvp_pipe.store import Store
from tests.label_world import Bench, World, stored_generator, world

MODALITIES = ("audio", "visual")
SMALL = FitSettings(folds=3)


@pytest.mark.parametrize("module", [stack_inputs, stack_model, stack_presence, calibration_error])
def test_the_docstring_examples_hold(module: ModuleType) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


# Expected calibration error


def error_by_hand(said: NDArray[np.float64], true: NDArray[np.bool_], bins: int) -> float:
    total = 0.0
    for place in range(bins):
        cells = [
            (p, y)
            for p, y in zip(said.tolist(), true.tolist(), strict=True)
            if place / bins <= p < (place + 1) / bins or (place == bins - 1 and p == 1.0)
        ]
        if cells:
            gap = sum(p for p, _ in cells) / len(cells) - sum(y for _, y in cells) / len(cells)
            total += abs(gap) * len(cells) / len(said)
    return total


@given(st.integers(0, 10_000), st.sampled_from([1, 4, 16]))
def test_the_calibration_error_is_that_of_a_loop_over_bins(seed: int, bins: int) -> None:
    random = np.random.default_rng(seed)
    said, true = random.random((3, 4, 2)), random.random((3, 4, 2)) < 0.5
    said.ravel()[:3] = 0.0, 1.0, 0.5
    found = expected_calibration_error(said, true, bins=bins)
    assert found == pytest.approx(error_by_hand(said.ravel(), true.ravel(), bins), abs=1e-12)


def test_only_cells_of_the_weak_label_and_within_the_clip_are_compared() -> None:
    said, true = np.full((2, 3, 2), 0.25), np.zeros((2, 3, 2), bool)
    weak = np.array([[True, False], [True, True]])
    true[0, :, 1] = True  # not in the weak label
    true[1, 2] = True  # beyond the clip
    said[0, 0, 0] = np.nan  # failed
    table = reliability(said, true, weak=weak, lengths=[3, 2], bins=2)
    assert table.cells.tolist() == [6, 0]
    assert table.found[0] == 0
    assert table.error == 0.25


@pytest.mark.parametrize(
    ("said", "match"),
    [
        (np.full((1, 2, 1), 1.5), "give probabilities"),
        (np.zeros((1, 2)), "share one shape"),
        (np.full((1, 2, 1), np.nan), "no cell"),
    ],
)
def test_what_is_no_probability_is_refused(said: NDArray[np.float64], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        expected_calibration_error(said, np.zeros((1, 2, 1), bool))


# Inputs


def cells(seed: int = 0, *, clips: int = 3, segments: int = 6) -> Cells:
    random = np.random.default_rng(seed)
    lengths = random.integers(1, segments + 1, clips)
    own, other = (
        {"static": random.normal(size=(clips, segments, 2)), "uwav": random.normal(size=(clips, segments, 2))}
        for _ in range(2)
    )
    return Cells(own, other, np.arange(segments) < lengths[:, None], random.random((clips, 2)) < 0.5)


def input_by_hand(name: str, given: Cells, n: int, t: int, c: int) -> float:
    """One number, from the words of its name."""
    length = int(given.valid[n].sum())
    if name == "labels":
        return math.log(max(int(given.weak[n].sum()), 1))
    who, what = name.split(": ")
    of = given.other[who[6:]] if who.startswith("other ") else given.own[who]
    clip = [float(of[n, u, c]) for u in range(length)]
    if what.startswith("t"):
        return clip[min(max(t + int(what[1:]), 0), length - 1)]
    if what == "smooth":
        shares = [math.exp(-((u - t) ** 2) / (2 * WIDTH**2)) for u in range(length)]
        return sum(a * b for a, b in zip(shares, clip, strict=True)) / sum(shares)
    return {
        "now": clip[t],
        "mean": sum(clip) / length,
        "max": max(clip),
        "min": min(clip),
        "bridge": min(max(clip[: t + 1]), max(clip[t:])),
    }[what]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_every_input_is_what_its_name_says(seed: int) -> None:
    given = cells(seed)
    names = names_of(["static", "uwav"])
    assert len(names) == 2 * 10 + 2 * 2 + 1
    for name in names:
        found = np.broadcast_to(column(name, given), (3, 6, 2))
        for n, t, c in np.ndindex(found.shape):
            if given.valid[n, t]:
                assert found[n, t, c] == pytest.approx(input_by_hand(name, given, n, t, c), abs=1e-6), name


def test_no_input_depends_on_padding_nor_on_what_stands_there() -> None:
    given = cells(1)
    wide = {"own": {}, "other": {}}  # type: dict[str, dict[str, NDArray[np.float64]]]
    for side, of in (("own", given.own), ("other", given.other)):
        wide[side] = {who: np.pad(array, ((0, 0), (0, 3), (0, 0)), constant_values=99.0) for who, array in of.items()}
    padded = Cells(wide["own"], wide["other"], np.pad(given.valid, ((0, 0), (0, 3))), given.weak)
    for name in names_of(["static", "uwav"]):
        here = np.broadcast_to(column(name, given), (3, 6, 2))
        there = np.broadcast_to(column(name, padded), (3, 9, 2))[:, :6]
        np.testing.assert_array_equal(there[given.valid], here[given.valid])


def test_unknown_inputs_are_refused_by_name() -> None:
    assert kinds_of("all") == KINDS
    assert kinds_of("labels, now") == ("now", "labels")
    with pytest.raises(ValueError, match=r"stack_inputs has 'tomorrow'; there are all, or some of now,near"):
        kinds_of("now,tomorrow")
    with pytest.raises(ValueError, match="no teacher 'ear'"):
        column("ear: now", cells())
    with pytest.raises(ValueError, match="no input 'static: median'"):
        column("static: median", cells())


def test_units_are_those_of_clips_that_name_the_class_with_all_clips_as_a_few_more() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(30, 10, 2)) + 5
    weak = np.zeros((30, 2), bool)
    weak[:10, 0] = True
    valid = np.ones((30, 10), bool)
    found = units_of(logits, weak, valid)
    named, every = logits[:10, :, 0].ravel(), logits[:, :, 0].ravel()
    weights = np.concatenate([np.ones(named.size), np.full(every.size, PRIOR_SECONDS / every.size)])
    both = np.concatenate([named, every])
    centre = np.average(both, weights=weights)
    assert found.centre[0] == pytest.approx(centre)
    assert found.scale[0] == pytest.approx(np.sqrt(np.average((both - centre) ** 2, weights=weights)))
    assert found.centre[1] == pytest.approx(logits[:, :, 1].mean())
    assert found.scale[1] == pytest.approx(logits[:, :, 1].std())


def test_a_teacher_that_always_says_the_same_has_units_too() -> None:
    found = units_of(np.full((4, 3, 1), 2.0), np.ones((4, 1), bool), np.ones((4, 3), bool))
    assert (found.centre[0], found.scale[0]) == (2.0, 1.0)


# The regression


def test_weights_are_recovered_from_what_they_made() -> None:
    random = np.random.default_rng(0)
    given = Cells(
        {"static": random.normal(size=(3000, 6, 2))},
        {"static": random.normal(size=(3000, 6, 2))},
        np.ones((3000, 6), bool),
        np.ones((3000, 2), bool),
    )
    names = ("static: now", "static: mean", "other static: mean")
    wanted = np.array([1.5, 0.0, -1.0])
    logit = sum(w * column(name, given) for w, name in zip(wanted, names, strict=True)) + np.array([0.5, -1.0])
    truth = random.random(logit.shape) < 1 / (1 + np.exp(-logit))
    model = fit_model(names, given, truth, given.weak, Shrinkage(strength=10.0, spread=0.0))
    np.testing.assert_allclose(model.weights, wanted, atol=0.1)
    np.testing.assert_allclose(model.intercepts, [0.5, -1.0], atol=0.1)
    assert not model.deviations.any()


def test_classes_that_differ_get_weights_that_differ() -> None:
    random = np.random.default_rng(0)
    given = Cells({"static": random.normal(size=(2000, 6, 2))}, {}, np.ones((2000, 6), bool), np.ones((2000, 2), bool))
    truth = random.random((2000, 6, 2)) < 1 / (1 + np.exp(-np.array([2.0, 0.5]) * given.own["static"]))
    model = fit_model(("static: now",), given, truth, given.weak, Shrinkage(strength=1.0, spread=1.0))
    np.testing.assert_allclose(model.weights + model.deviations[:, 0], [2.0, 0.5], atol=0.1)


def penalised_entropy(logit: NDArray[np.float64], truth: NDArray[np.bool_], penalty: float) -> float:
    return float(np.logaddexp(0, np.where(truth, -logit, logit)).sum() + penalty)


def test_the_fit_is_a_minimum_of_the_penalised_cross_entropy() -> None:
    given, random = cells(3, clips=12), np.random.default_rng(3)
    names = names_of(["static"], ("now", "mean", "labels"))
    truth, shrinkage = random.random((12, 6, 2)) < 0.4, Shrinkage(strength=0.5, spread=0.4)
    counted = np.broadcast_to(given.weak[:, None, :] & given.valid[:, :, None], truth.shape)
    model = fit_model(names, given, truth, given.weak, shrinkage)
    columns = [np.broadcast_to(column(name, given), truth.shape) for name in names]

    def entropy(
        weights: NDArray[np.float64], deviations: NDArray[np.float64], own: NDArray[np.float64], common: float
    ) -> float:
        logit = np.zeros(truth.shape) + own + common
        for place, values in enumerate(columns):
            logit = logit + (weights[place] + deviations[:, place]) * values
        squares = (weights**2).sum() + ((deviations / shrinkage.spread) ** 2).sum() + (own**2).sum()
        return penalised_entropy(logit[counted], truth[counted], squares / (2 * shrinkage.strength))

    # Of all ways to split intercepts into a common one and the rest, the mean costs least.
    common = float(model.intercepts.mean())
    best = entropy(model.weights, model.deviations, model.intercepts - common, common)
    for _ in range(50):
        step = [1e-3 * random.normal(size=shape) for shape in ((len(names),), (2, len(names)), (2,))]
        moved = entropy(
            model.weights + step[0], model.deviations + step[1], model.intercepts - common + step[2], common
        )
        assert moved > best


def test_where_all_cells_are_alike_only_the_common_intercept_speaks() -> None:
    given = cells(0)
    for truth in (np.ones((3, 6, 2), bool), np.zeros((3, 6, 2), bool)):
        model = fit_model(("static: now",), given, truth, np.ones((3, 2), bool), Shrinkage())
        found = scores(("static: now",), given, model)[given.valid]
        assert np.isfinite(found).all()
        assert len(np.unique(found)) == 1
        assert (found > 0).all() == truth.all()


@given(st.integers(2, 30), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_equal_parts_that_do_not_depend_on_the_order_of_clips(clips: int, folds: int, seed: int) -> None:
    ids = [f"clip{n}" for n in range(clips)]
    found = folds_of(ids, folds, seed=seed)
    sizes = np.bincount(found, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    assert folds_of(ids[::-1], folds, seed=seed)[::-1].tolist() == found.tolist()


# Two cuts


def test_a_clip_without_a_clear_second_is_not_called_at_all() -> None:
    logits = np.array([[[-0.6], [0.2], [np.nan]], [[-0.6], [0.7], [-1.2]]], np.float32)
    cuts = Presence(second=-0.8, clip=0.25)
    called = brought_down(logits, cuts) > np.float32(cuts.second)
    assert called[:, :, 0].tolist() == [[False, False, False], [True, True, False]]
    assert np.isnan(brought_down(logits, cuts)[0, 2, 0])
    np.testing.assert_array_equal(brought_down(logits, Presence(-0.8, -np.inf)), logits)


def test_the_cuts_chosen_are_the_best_there_are_by_the_official_score() -> None:
    random = np.random.default_rng(0)
    truth = np.repeat(random.random((40, 1, 3)) < 0.5, 8, axis=1) & (random.random((40, 8, 3)) < 0.9)
    logits = (2.0 * truth - 1.0 + random.normal(scale=1.0, size=truth.shape)).astype(np.float32)
    weak, lengths = np.ones((40, 3), bool), np.full(40, 8)

    def score(second: float, clip: float) -> float:
        there = logits.max(axis=1, keepdims=True) > clip
        called = (logits > np.float32(second)) & (there | (clip < second))
        found = avvp_scores(called, called, truth, truth)
        return (found["segment"]["A"] + found["event"]["A"]) / 2

    table = np.array([[score(second, clip) for second in SECOND_CUTS] for clip in CLIP_CUTS])
    wide = np.pad(table, ((0, 0), (1, 1)), mode="edge")
    smoothed = wide[:, :-2] + 2 * table + wide[:, 2:]
    found = choose(logits, truth, weak, lengths)
    place = CLIP_CUTS.index(found.clip), SECOND_CUTS.index(found.second)
    assert smoothed[place] == pytest.approx(smoothed.max(), abs=1e-9)
    assert smoothed.max() > smoothed.min() + 1


# The whole


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Generators:
    store = Store(tmp_path_factory.mktemp("store"))
    return {"generator": stored_generator(store, "uwav"), "second_generator": stored_generator(store, "ear")}


@pytest.fixture(scope="module")
def labelled() -> World:
    return world(36, training=0, failed=(5,))


def fitted(one: World, generators: Generators | None = None, how: FitSettings = SMALL) -> Fit:
    return stack.fit(one.evidence, one.labelled, generators or {}, how)


def same(mine: Logits, yours: Logits, *, tolerance: float = 0.0) -> None:
    for here, there in zip(mine, yours, strict=True):
        np.testing.assert_allclose(here, there, rtol=tolerance, atol=tolerance)


def test_the_labels_of_a_clip_do_not_change_its_own_cross_fitted_logits_but_do_change_others(labelled: World) -> None:
    how = replace(SMALL, stack_cuts="sweep")  # cuts are chosen on all clips
    before = fitted(labelled, how=how)
    row = int(np.flatnonzero((labelled.lengths > 2) & (labelled.status == 1))[0])
    audio = labelled.audio.copy()
    audio[row] = ~audio[row]
    after = fitted(replace(labelled, audio=audio), how=how)
    np.testing.assert_array_equal(before.logits.audio[row], after.logits.audio[row])
    folds = stack_of(before.fitted).folds
    mates = [n for n, name in enumerate(labelled.video_ids) if folds[name] == folds[labelled.video_ids[row]]]
    others = [n for n in range(36) if n not in mates and labelled.status[n] == 1]
    np.testing.assert_array_equal(before.logits.audio[mates], after.logits.audio[mates])
    assert (before.logits.audio[others] != after.logits.audio[others]).any()


def test_pseudolabel_gives_a_labelled_clip_the_model_that_has_not_seen_it_and_others_the_whole(labelled: World) -> None:
    fit = fitted(labelled)
    label = stack.labeller({}, fit.fitted)
    same(label(labelled.evidence), fit.logits)
    strangers = replace(labelled, video_ids=tuple(f"stranger{n}" for n in range(36)))
    of_all, parts = label(strangers.evidence), stack_of(fit.fitted).parts
    alone = replace(stack_of(fit.fitted), parts=parts[-1:], folds={})
    same(
        of_all,
        alone.lowered(alone.logits(stack._clips(labelled.evidence, {"static": valor.logits}), labelled.video_ids)),
    )
    assert (of_all.audio != fit.logits.audio)[labelled.status == 1].any()


def test_a_clip_s_logits_do_not_depend_on_the_clips_beside_it(labelled: World, generators: Generators) -> None:
    fit = fitted(labelled)
    label = stack.labeller({}, fit.fitted)
    some = np.array([30, 2, 17])
    same(label(labelled.rows(some).evidence), Logits(*(values[some] for values in fit.logits)))


def test_order_of_clips_changes_no_bit_and_order_of_classes_only_rounding(labelled: World) -> None:
    fit, back = fitted(labelled), np.arange(36)[::-1]
    turned = fitted(labelled.rows(back))
    same(turned.logits, Logits(*(values[back] for values in fit.logits)))
    for name, array in fit.fitted.items():
        np.testing.assert_array_equal(turned.fitted[name], array)
    columns = [2, 0, 3, 1]
    other = fitted(labelled.columns(columns))
    same(other.logits, Logits(*(values[:, :, columns] for values in fit.logits)), tolerance=1e-4)


def test_the_same_seed_gives_the_same_bytes_and_another_other_folds(labelled: World) -> None:
    one, two = fitted(labelled), fitted(labelled)
    assert {name: array.tobytes() for name, array in one.fitted.items()} == {
        name: array.tobytes() for name, array in two.fitted.items()
    }
    other = fitted(labelled, how=replace(SMALL, seed=1))
    assert (other.fitted["folds"] != one.fitted["folds"]).any()


def test_padding_changes_no_valid_second(labelled: World) -> None:
    fit, wide = fitted(labelled), fitted(labelled.padded(4))
    same(Logits(*(values[:, :6] for values in wide.logits)), fit.logits, tolerance=1e-5)
    assert all(np.isnan(values[:, 6:]).all() for values in wide.logits)


def test_failed_clips_and_padding_have_no_logits_and_all_else_has(labelled: World) -> None:
    there = (np.arange(6) < labelled.lengths[:, None]) & (labelled.status == 1)[:, None]
    for values in fitted(labelled).logits:
        assert (np.isfinite(values) == there[:, :, None]).all()


def test_the_method_s_thresholds_call_just_what_its_two_cuts_call(labelled: World) -> None:
    fit = fitted(labelled)
    assert fit.thresholds is not None
    plain = fitted(labelled, how=replace(SMALL, stack_cuts="sweep"))
    assert plain.thresholds is None
    for name in MODALITIES:
        second, clip = fit.fitted[f"{name}_cuts"]
        before, after = getattr(plain.logits, name), getattr(fit.logits, name)
        best = np.nan_to_num(before, nan=-np.inf).max(axis=1, keepdims=True)
        wanted = (before > np.float32(second)) & (best > np.float32(clip))
        assert ((after > getattr(fit.thresholds, name)) == wanted).all()
        np.testing.assert_array_equal(after[wanted], before[wanted])
    per_class = fitted(labelled, how=replace(SMALL, mode="per-class"))
    assert per_class.thresholds is None


def test_a_class_without_clips_or_without_positives_and_clips_of_one_second_are_no_trouble(labelled: World) -> None:
    short = world(20, segments=1, training=0)
    assert all(np.isfinite(values).all() for values in fitted(short).logits)
    weak, audio, visual = labelled.weak.copy(), labelled.audio.copy(), labelled.visual.copy()
    weak[:, 3] = False  # never named
    audio[:, :, 2] = False  # never heard
    fit = fitted(replace(labelled, weak=weak, audio=audio, visual=visual))
    ok = labelled.status == 1
    assert np.isfinite(fit.logits.audio[ok, 0]).all()
    named = weak[:, 2] & ok
    assert fit.logits.audio[named, 0, 2].mean() < fit.logits.audio[named, 0, 0].mean()
    assert not fit.fitted["audio_deviations"][:, 3].any()


def test_without_any_weak_label_nothing_is_learnt_and_nothing_breaks(labelled: World) -> None:
    fit = fitted(replace(labelled, weak=np.zeros_like(labelled.weak)))
    assert not fit.fitted["audio_weights"].any()


def test_one_labelled_clip_is_too_few(labelled: World) -> None:
    with pytest.raises(ValueError, match="1 clip is labelled"):
        fitted(labelled.rows([0]))
    two = fitted(labelled.rows([0, 1]))
    assert sorted(two.fitted["folds"].tolist()) == [0, 1]


def test_positives_outside_the_weak_label_are_left_out_of_fitting_unless_it_is_no_filter(labelled: World) -> None:
    outside = replace(labelled, audio=labelled.audio | ~labelled.weak[:, None, :])
    how = replace(SMALL, stack_cuts="sweep")
    same(fitted(outside, how=how).logits, fitted(labelled, how=how).logits)
    free = replace(how, weak_filter="visual")
    one, other = fitted(labelled, how=free), fitted(outside, how=free)
    assert "named" in one.fitted["inputs"]
    rest = np.broadcast_to(~labelled.weak[:, None, :], one.logits.audio.shape)
    assert np.nanmean(one.logits.audio[rest]) < 0 < np.nanmean(other.logits.audio[rest])


def test_each_generator_is_a_teacher_and_either_may_be_missing(labelled: World, generators: Generators) -> None:
    both = fitted(labelled, generators)
    assert both.fitted["teachers"].tolist() == ["static", "uwav", "ear"]
    assert {"uwav: bridge", "other ear: mean"} <= set(both.fitted["inputs"].tolist())
    for role, name in (("generator", "uwav"), ("second_generator", "ear")):
        one = {role: generators[role]}
        fit = fitted(labelled, one)
        assert fit.fitted["teachers"].tolist() == ["static", name]
        same(stack.labeller(one, fit.fitted)(labelled.evidence), fit.logits)


def test_it_is_all_one_in_which_role_a_generator_comes_but_not_which_it_is(
    labelled: World, generators: Generators
) -> None:
    fit = fitted(labelled, generators)
    turned = {"generator": generators["second_generator"], "second_generator": generators["generator"]}
    same(stack.labeller(turned, fit.fitted)(labelled.evidence), fit.logits)
    for wrong in ({}, {"generator": generators["generator"]}):
        with pytest.raises(ValueError, match=r"was calibrated with, uwav \(.*\), ear \(.*\), but came with"):
            stack.labeller(wrong, fit.fitted)


def test_generators_are_asked_with_the_prompts_of_their_pre_training(labelled: World, generators: Generators) -> None:
    features = labelled.evidence.features
    texts = Texts(np.roll(features.text_audio, 1, axis=0), np.roll(features.text_visual, 1, axis=0))
    speak = stack._speakers(generators, stack._sources(generators))
    shown = replace(labelled.evidence, texts={"uwav": texts})
    asked = replace(labelled.evidence, features=replace(features, text_audio=texts.audio, text_visual=texts.visual))
    same(speak["uwav"](shown), temporal.labeller({"generator": generators["generator"]}, {})(asked))
    same(speak["static"](shown), valor.logits(labelled.evidence))


def test_a_stack_is_explained_by_its_weights_the_heaviest_first(labelled: World) -> None:
    fit = fitted(labelled)
    lines = explained(fit.fitted)
    heard = [line for line in lines if line.modality == "audio"]
    assert [line.name for line in lines[: len(heard)]] == [line.name for line in heard]
    assert sorted(line.name for line in heard) == sorted(fit.fitted["inputs"].tolist())
    assert sorted((abs(line.weight) for line in heard), reverse=True) == [abs(line.weight) for line in heard]
    place = fit.fitted["inputs"].tolist().index(heard[0].name)
    assert heard[0].weight == fit.fitted["audio_weights"][-1, place]
    assert heard[0].spread == pytest.approx(fit.fitted["audio_deviations"][-1, :, place].std())


def test_what_is_stored_is_what_was_fitted(labelled: World, generators: Generators) -> None:
    fit = fitted(labelled, generators)
    again = stack_of(fit.fitted).arrays()
    assert again.keys() == fit.fitted.keys()
    for name, array in again.items():
        np.testing.assert_array_equal(array, fit.fitted[name])
    assert not any(array.dtype.hasobject for array in again.values())


def dropping_out(seed: int, clips: int = 120) -> tuple[Evidence, Labelled]:
    """Long events whose evidence is lost for a second or two; each class is an axis of the features."""
    random = np.random.default_rng(seed)
    truth = np.zeros((2, clips, 10, 3), bool)
    for n in range(clips):
        for c in range(3):
            start, length = random.integers(0, 6), random.integers(4, 9)
            truth[:, n, start : start + length, c] = random.random((2, 1)) < 0.7
    lost = random.random(truth.shape) < 0.15
    lost[:, :, 1:] |= lost[:, :, :-1]
    seen = (3.0 * (truth & ~lost) + random.normal(size=truth.shape)).astype(np.float32)
    eye = np.eye(3, dtype=np.float32)
    features = SegmentFeatures(seen[0], seen[1], eye, eye, 0.0, 0.0, np.full(clips, 10, np.int32))
    ids = tuple(f"clip{seed}-{n}" for n in range(clips))
    return Evidence(features, truth.any(axis=(0, 2)), ids), Labelled(truth[0], truth[1])


def test_on_clips_it_has_not_seen_it_beats_one_threshold_and_its_probabilities_are_calibrated() -> None:
    shown, known = dropping_out(0)
    fit = stack.fit(shown, known, {}, FitSettings())
    assert fit.thresholds is not None
    new, truth = dropping_out(1)
    found = stack.labeller({}, fit.fitted)(new)
    plain = valor.logits(new)
    weak = new.weak[:, None, :]
    hard = [(values > cut) & weak for values, cut in zip(found, fit.thresholds, strict=True)]
    # The cut that is best in hindsight, of all there are: VALOR can do no better.
    cuts = np.linspace(-1, 3, 41)
    best = [
        max(cuts, key=lambda cut: ((values > cut) == y)[np.broadcast_to(weak, y.shape)].mean())
        for values, y in zip(plain, (truth.audio, truth.visual), strict=True)
    ]
    static = [(values > cut) & weak for values, cut in zip(plain, best, strict=True)]
    ours, theirs = (avvp_scores(labels[0], labels[1], truth.audio, truth.visual) for labels in (hard, static))
    assert ours["segment"]["Type"] > theirs["segment"]["Type"] + 5
    assert ours["event"]["Type"] > theirs["event"]["Type"] + 5
    for values, y in zip(found, (truth.audio, truth.visual), strict=True):
        assert expected_calibration_error(1 / (1 + np.exp(-values)), y, weak=new.weak) < 0.08


def test_the_stage_stores_what_labelling_needs(tmp_path: Path) -> None:
    bench = Bench(tmp_path, world(40))
    for kind in ("uwav", "ear"):
        stored_generator(bench.store, kind)
    thresholds = bench.calibrate("stack", folds=3, stack_inputs="now,near,bridge,other-mean")
    assert thresholds.strings("fitted/inputs")[0] == "static: now"
    fitted_arrays = {
        name.removeprefix("fitted/"): thresholds.array(name)
        for name in thresholds.array_names()
        if name.startswith("fitted/")
    }
    assert len(explained(fitted_arrays)) == 2 * len(thresholds.strings("fitted/inputs"))
    labels = bench.label("stack")
    for name in MODALITIES:
        logits, cut = labels.array(f"{name}_logits"), thresholds.array(name)
        assert len(set(cut.tolist())) == 1
        weak = bench.world.weak[:, None, :]
        np.testing.assert_array_equal(labels.array(f"{name}_hard"), (logits > cut) & weak)
        soft = np.where(np.isnan(logits) | ~weak, 0, 1 / (1 + np.exp(-logits.astype(np.float64))))
        np.testing.assert_allclose(labels.array(f"{name}_soft"), soft, atol=1e-6)


def test_the_help_of_the_command_names_every_kind_of_input() -> None:
    (field,) = [field for field in fields(Params) if field.name == "stack_inputs"]
    assert f"some of {','.join(KINDS)}." in field.metadata["help"]
