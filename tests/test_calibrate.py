"""Stage `calibrate`: fitted or published thresholds, with what they achieve, how sure they are, and for whom."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avvp_pipe.pipeline.runner import Step, run_step
from avvp_pipe.stages.calibrate import Params, drawn, fit_settings
from avvp_pipe.stages.datasets.prompts import VALOR_CLASSES
from avvp_pipe.stages.generators import FitSettings
from avvp_pipe.stages.generators.valor import published_thresholds
from avvp_pipe.stages.stage import ParameterError, Silent
from avvp_pipe.store import Store, StoreError
from avvp_pipe.store.verify import verify
from tests.label_world import CALIBRATED, CLASSES, Bench, Noting, World, stored, stored_generator, world

INF = np.inf
TABLE_6 = [
    (20, 0), (15, 0), (18, 1), (14, 4), (15, 6), (18, -2), (18, 4), (15, 4), (15, 2), (15, 2), (15, 2), (18, 1),
    (15, 2), (15, 3), (15, 0), (15, 2), (15, 2), (15, 2), (15, 0), (16, 2), (14, -1), (15, 2), (15, 3), (15, 3),
    (18, 0),
]  # fmt: skip
"""VALOR's Table 6: visual and audio threshold of each class, in LLP's order."""
LLP = tuple(one.name for one in VALOR_CLASSES)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, world(40))


def validation(one: World) -> World:
    return one.rows(np.flatnonzero((np.array(one.splits) == "val") & (one.status == 1)))


# What is stored


@pytest.mark.parametrize("method", ["valor", "zero-shot"])
def test_thresholds_are_stored_with_all_that_labelling_needs_and_pass_verification(bench: Bench, method: str) -> None:
    found = bench.calibrate(method, bootstrap=7)
    assert found.described["weak_filter"] == "both"
    assert found.described["prompts"] == "valor"
    assert found.described["method"] == method
    assert found.described["clips"] == found.described["labelled_clips"] == 16
    sweeps = 1 if method == "zero-shot" else 4
    for modality in ("audio", "visual"):
        assert found.array(f"{modality}_curves").shape[:2] == (4, sweeps)
        assert found.array(f"{modality}_bootstrap").shape == (7, 4)
        assert found.array(f"{modality}_spread").shape == (2, 4)
        assert len(set(found.array(modality).tolist())) <= sweeps
    assert verify(found).is_sound


def test_the_same_parameters_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (Bench(tmp_path / name, world(40)).calibrate(bootstrap=20, share=0.5, seed=3) for name in "ab")
    assert one.key == other.key
    for name in one.array_names():
        if name != "classes":
            np.testing.assert_array_equal(one.array(name), other.array(name))


# The weak filter


def test_without_the_filter_the_sweep_and_the_labels_reach_beyond_the_weak_label(bench: Bench) -> None:
    from avvp_pipe.stages.blocks.thresholds import calibrate
    from avvp_pipe.stages.generators.valor import logits

    found = bench.calibrate("zero-shot", weak_filter="visual")
    val = validation(bench.world)
    everything = np.ones_like(val.weak)
    for modality, weak in (("audio", everything), ("visual", val.weak)):
        values, labels = getattr(logits(val.evidence), modality), getattr(val, modality)
        wanted = calibrate(values, labels, weak, lengths=val.lengths, mode="class-agnostic")
        np.testing.assert_array_equal(found.array(modality), wanted.thresholds)
    labels = bench.label("zero-shot")
    weak = bench.world.weak[:, None]
    assert labels.described["weak_filter"] == "visual"
    assert (labels.array("audio_hard") & ~weak).any()
    assert ((labels.array("audio_soft") > 0) & ~weak).any()
    assert not (labels.array("visual_hard") & ~weak).any()
    assert not ((labels.array("visual_soft") > 0) & ~weak).any()


# Precision


def test_labels_are_computed_in_the_precision_of_their_thresholds(bench: Bench) -> None:
    stored_generator(bench.store, "uwav")
    exact, rough = (bench.calibrate("uwav", name=name, precision=name) for name in ("fp32", "bf16"))
    assert (exact.described["precision"], rough.described["precision"]) == ("fp32", "bf16")
    labels = {name: bench.label("uwav", name=name, thresholds=name) for name in ("fp32", "bf16")}
    for modality in ("audio", "visual"):
        one, other = (labels[name].array(f"{modality}_logits") for name in ("fp32", "bf16"))
        assert other.dtype == np.float32
        assert not np.array_equal(one, other, equal_nan=True)
        np.testing.assert_allclose(one, other, rtol=0, atol=0.05 * float(np.nanstd(one)))
    assert bench.calibrate("uwav", name="auto", precision="auto").described["precision"] in ("fp32", "bf16")


# Published thresholds


def test_published_thresholds_follow_the_names_of_the_classes() -> None:
    order = np.random.default_rng(0).permutation(25)
    straight, mixed = published_thresholds(LLP), published_thresholds([LLP[index] for index in order])
    np.testing.assert_array_equal(straight.audio[order], mixed.audio)
    np.testing.assert_array_equal(straight.visual[order], mixed.visual)
    assert list(zip(straight.visual, straight.audio, strict=True)) == TABLE_6


def test_published_thresholds_are_measured_where_the_split_is_labelled(tmp_path: Path) -> None:
    from avvp_pipe.stages.generators.valor import logits

    bench = Bench(tmp_path, world(60, classes=LLP))
    found = bench.calibrate(source="published")
    published = published_thresholds(LLP)
    np.testing.assert_array_equal(found.array("visual"), published.visual)
    np.testing.assert_array_equal(found.array("audio"), published.audio)
    val = validation(bench.world)
    valid = (np.arange(val.audio.shape[1]) < val.lengths[:, None])[:, :, None]
    called = (logits(val.evidence).audio > published.audio) & val.weak[:, None] & valid
    right, all_called, positives = ((x & valid).sum(axis=(0, 1)) for x in (called & val.audio, called, val.audio))
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(found.array("audio_f1"), 2 * right / (all_called + positives))
    hard = bench.label().array("audio_hard")[np.array(bench.world.splits) == "val"]
    np.testing.assert_array_equal(hard, called)


def test_published_thresholds_need_no_labelled_clip(tmp_path: Path) -> None:
    one = world(30, classes=LLP)
    store = Store(tmp_path)
    stored(store, one, dense=0)
    step = Step("calibrate", "fit", {"source": "published"}, {"dataset": "mine", "features": "mine"})
    progress = Noting()
    found = run_step(store, step, progress=progress).artifact
    assert np.isnan(found.array("visual_f1")).all()
    assert "audio: no clip of split 'val' is labelled, so that F1 is not measured" in progress.notes
    assert verify(found).is_sound


def test_published_thresholds_are_told_to_be_of_other_teachers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, replace(world(30, classes=LLP), attributes={"visual_log_scale": 2.0}))
    bench.calibrate(source="published", prompts="uwav")
    assert any("visual: the published thresholds are for a teacher" in note for note in bench.progress.notes)
    assert "the published thresholds are for the prompt set valor, not uwav" in bench.progress.notes


def test_published_thresholds_are_refused_for_other_classes_methods_and_with_settings_of_a_fit(bench: Bench) -> None:
    with pytest.raises(ValueError, match=r"25 classes of LLP.* Bell, Drum, Flute, Harp are not among them"):
        bench.calibrate(source="published")
    with pytest.raises(ParameterError, match="zero-shot has no published thresholds"):
        bench.calibrate("zero-shot", source="published")
    with pytest.raises(ParameterError, match="leave out --share, --bootstrap"):
        bench.calibrate(source="published", share=0.5, bootstrap=10)


# A share of the labelled clips


def test_a_share_is_drawn_by_id_and_smaller_shares_lie_within_larger_ones() -> None:
    names = [f"clip{number}" for number in range(101)]
    halves = drawn(names, share=0.5, seed=0)
    tenth = drawn(names, share=0.1, seed=0)
    assert (len(halves), len(tenth), len(drawn(names, share=1.0, seed=0))) == (50, 10, 101)
    assert set(tenth) < set(halves)
    assert len(drawn(names, share=0.001, seed=0)) == 1
    assert set(drawn(names, share=0.5, seed=1)) != set(halves)
    backwards = drawn(names[::-1], share=0.1, seed=0)
    assert {names[::-1][row] for row in backwards} == {names[row] for row in tenth}


def test_thresholds_of_a_share_are_those_of_its_clips_alone(bench: Bench) -> None:
    from avvp_pipe.stages.blocks.thresholds import calibrate
    from avvp_pipe.stages.generators.valor import logits

    found = bench.calibrate(share=0.5, seed=4)
    val = validation(bench.world)
    half = val.rows(drawn(list(val.video_ids), share=0.5, seed=4))
    wanted = calibrate(logits(half.evidence).visual, half.visual, half.weak, lengths=half.lengths)
    np.testing.assert_array_equal(found.array("visual"), wanted.thresholds)
    assert (found.described["clips"], found.described["labelled_clips"]) == (8, 16)


def test_every_setting_of_a_fit_is_a_parameter_of_the_stage() -> None:
    assert fit_settings(Params(seed=3, folds=4)) == replace(FitSettings(), seed=3, folds=4)


# Classes without positives


@pytest.mark.parametrize(("rule", "wanted"), [("never", INF), ("always", -INF)])
def test_a_class_without_positives_gets_the_rule_and_is_named(tmp_path: Path, rule: str, wanted: float) -> None:
    one = world(40)
    one.visual[:, :, CLASSES.index("Flute")] = False
    bench = Bench(tmp_path, one)
    found = bench.calibrate(no_positives=rule)
    assert found.array("visual")[2] == wanted
    assert np.isfinite(found.array("audio")[2]) or found.array("audio")[2] == -INF
    assert f"visual: Flute has no positive to fit on; its threshold is {wanted} (--no-positives {rule})" in (
        bench.progress.notes
    )


def test_a_class_without_positives_can_have_the_threshold_of_all_classes(tmp_path: Path) -> None:
    one = world(40)
    one.visual[:, :, 2] = False
    bench = Bench(tmp_path, one)
    pooled = bench.calibrate(name="pooled", no_positives="pooled").array("visual")
    never = bench.calibrate(name="never").array("visual")
    shared = bench.calibrate(name="shared", mode="class-agnostic").array("visual")
    assert pooled[2] == shared[2]
    np.testing.assert_array_equal(np.delete(pooled, 2), np.delete(never, 2))


# Bad input


def test_a_split_without_dense_labels_says_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    stored(store, world(), dense=2)
    step = Step("calibrate", "fit", {}, {"dataset": "mine", "features": "mine"})
    with pytest.raises(
        StoreError, match=r"no clip of split 'val' .* labelled for audio and vision.*--source published"
    ):
        run_step(store, step, progress=Silent())


def test_an_unknown_split_or_prompt_set_names_those_there_are(bench: Bench) -> None:
    with pytest.raises(StoreError, match="has no clips in split 'dev'; it has test, train, val"):
        bench.calibrate(split="dev")
    with pytest.raises(StoreError, match="has no prompt set 'mine'; it has uwav, valor"):
        bench.calibrate(prompts="mine")


@pytest.mark.parametrize("value", [np.nan, INF])
def test_features_that_are_not_finite_are_refused_by_the_name_of_the_clip(tmp_path: Path, value: float) -> None:
    one = world(40)
    row = int(np.flatnonzero(np.array(one.splits) == "val")[3])
    one.features["visual"][row, 0, 5] = value
    bench = Bench(tmp_path, one)
    with pytest.raises(
        StoreError, match=f"visual features of {one.video_ids[row]} that are NaN or infinite in second 0"
    ):
        bench.calibrate()


def test_features_near_the_largest_float_are_numbers(tmp_path: Path) -> None:
    one = world(40)
    one.features["visual"][9, 0] = 3e38
    with np.errstate(over="ignore", invalid="ignore"):
        assert Bench(tmp_path, one).calibrate().described["clips"] == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": [*CLASSES[1:], CLASSES[0]]}, "are not those of .* \\(in another order\\)"),
        ({"classes": ["a", "b", "c", "d"]}, "are not those of .* \\(others\\): a, b, c... where Bell, Drum, Flute"),
    ],
)
def test_features_of_other_classes_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    bench = Bench(tmp_path, replace(world(), attributes=change))
    with pytest.raises(StoreError, match=message):
        bench.calibrate()


def test_features_of_another_width_than_their_texts_or_than_the_generator_are_refused(tmp_path: Path) -> None:
    one = world()
    narrow = {**one.features, "text_visual": one.features["text_visual"][:, :5]}
    with pytest.raises(StoreError, match=r"the visual segments of .* are 12 wide, its texts 'valor' 5"):
        Bench(tmp_path / "texts", replace(one, features=narrow)).calibrate()
    bench = Bench(tmp_path / "generator", one)
    stored_generator(bench.store, "uwav", widths=(8, 10))
    with pytest.raises(
        ValueError, match="was trained on audio features of 8 numbers and visual ones of 10, but the segments"
    ):
        bench.calibrate("uwav")


def test_a_generator_of_another_method_or_too_many_are_refused(bench: Bench) -> None:
    stored_generator(bench.store, "ear")
    inputs = {"dataset": "mine", "features": "mine", "generator": "generator/ear"}
    for method, message in (("uwav", "was pre-trained as ear, but uwav runs"), ("valor", "valor runs no generator")):
        with pytest.raises(ValueError, match=message):
            run_step(bench.store, Step("calibrate", "x", {"method": method}, inputs), progress=Silent())


@pytest.mark.parametrize("method", CALIBRATED)
def test_thresholds_of_another_method_or_of_none_are_refused(bench: Bench, method: str) -> None:
    for kind in ("uwav", "ear"):
        stored_generator(bench.store, kind)
    bench.calibrate("zero-shot" if method == "valor" else "valor")
    with pytest.raises(ParameterError, match=f"was calibrated for .*, not for {method}"):
        bench.label(method)
    with pytest.raises(ParameterError, match=f"calibrate --method {method}`"):
        bench.label(method, thresholds=None)


def test_thresholds_for_other_classes_or_in_another_order_are_refused(tmp_path: Path) -> None:
    bench = Bench(tmp_path, world(40))
    bench.calibrate()
    stored(bench.store, world(40, classes=("Bell", "Drum", "Flute", "Kazoo")))
    with pytest.raises(ParameterError, match=r"for other classes: Harp are not the dataset's, Kazoo of the dataset's"):
        bench.label()
    stored(bench.store, world(40).columns([1, 0, 2, 3]))
    with pytest.raises(ParameterError, match=r"in another order: number 0 is 'Bell', in the dataset 'Drum'"):
        bench.label()


def test_thresholds_that_video_labels_have_no_use_for_are_refused(bench: Bench) -> None:
    bench.calibrate()
    with pytest.raises(ParameterError, match="video-labels cuts nothing"):
        bench.label("video-labels")
