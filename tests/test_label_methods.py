"""What holds of every method that makes labels, whatever it does inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from avvp_pipe.stages.blocks.labelling import Clips, soft_by, stored_hard
from avvp_pipe.stages.blocks.search import Search, search
from avvp_pipe.stages.generators import GENERATORS, FitSettings, Fitted, Generators, Logits
from avvp_pipe.store import Store
from avvp_pipe.store.verify import verify
from tests.label_world import CALIBRATED, Bench, World, generator_inputs, stored_generator, world

METHODS = pytest.mark.parametrize("name", list(GENERATORS))
EXACT = [name for name, method in GENERATORS.items() if method.generator == "none" and method.soft != "probability"]
"""Methods of plain sums: what they say of a clip does not depend on how many stand beside it, to the last bit."""
# Derandomised: where two thresholds are equally good but for rounding, a refit may take the other one.
SEVERAL = settings(max_examples=2, deadline=None, derandomize=True)
SEEDS = st.integers(0, 10_000)


@dataclass(frozen=True)
class Made:
    """Labels of both modalities, by modality."""

    logits: Logits
    thresholds: Mapping[str, NDArray[np.float32]]
    hard: Mapping[str, NDArray[np.bool_]]
    soft: Mapping[str, NDArray[np.float32]]
    fitted: Fitted


@pytest.fixture(scope="module")
def generators(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Generators]:
    """What each method runs, by its name."""
    store = Store(tmp_path_factory.mktemp("store"))
    made = {f"generator/{kind}": stored_generator(store, kind) for kind in ("uwav", "ear")}
    return {name: {role: made[reference] for role, reference in generator_inputs(name).items()} for name in GENERATORS}


def fitted_on(name: str, one: World, runs: Generators) -> tuple[Fitted, Mapping[str, NDArray[np.float32]]]:
    """What `calibrate` finds on these clips: what the method learns, and its thresholds."""
    method = GENERATORS[name]
    if not method.calibrated:
        nothing = np.full(len(one.classes), -np.inf, np.float32)
        return {}, {"audio": nothing, "visual": nothing}
    fitted: Fitted = {}
    if method.fit is None:
        logits = method.labeller(runs, {})(one.evidence)
    else:
        fit = method.fit(one.evidence, one.labelled, runs, FitSettings(folds=2))
        fitted, logits = fit.fitted, fit.logits
    how = Search(mode="class-agnostic" if method.thresholds == "class-agnostic" else "per-class")
    return fitted, {
        modality: search(values, getattr(one, modality), one.weak, one.lengths, how)[0].thresholds
        for modality, values in logits._asdict().items()
    }


def labelled_by(
    name: str, one: World, runs: Generators, fitted: Fitted, thresholds: Mapping[str, NDArray[np.float32]]
) -> Made:
    """What `pseudolabel` makes of these clips."""
    method = GENERATORS[name]
    logits = method.labeller(runs, fitted)(one.evidence)
    everything = np.ones(len(one.lengths), bool)
    clips = Clips(one.weak, one.lengths, one.status, everything, one.audio.shape[1])
    each = logits._asdict()
    return Made(
        logits,
        thresholds,
        {modality: stored_hard(values, thresholds[modality], clips) for modality, values in each.items()},
        {
            modality: soft_by(method.soft, values, thresholds[modality], clips, temperature=2.0)
            for modality, values in each.items()
        },
        fitted,
    )


def made_by(name: str, one: World, runs: Generators) -> Made:
    """Fitted on these clips, and labels of them."""
    return labelled_by(name, one, runs, *fitted_on(name, one, runs))


def valid(one: World) -> NDArray[np.bool_]:
    """(N, T, 1): seconds that are to be labelled."""
    there = np.arange(one.audio.shape[1]) < one.lengths[:, None]
    return np.asarray((there & (one.status == 1)[:, None])[:, :, None])


def assert_close(one: Logits, other: Logits, *, tolerance: float = 1e-4) -> None:
    for modality in Logits._fields:
        np.testing.assert_allclose(getattr(one, modality), getattr(other, modality), rtol=0, atol=tolerance)


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_labels_have_the_shapes_and_dtypes_of_the_store_and_no_nan(
    name: str, generators: Mapping[str, Generators], seed: int
) -> None:
    one = world(seed=seed, failed=(3, 11))
    made = made_by(name, one, generators[name])
    for modality, logits in made.logits._asdict().items():
        assert logits.shape == made.hard[modality].shape == made.soft[modality].shape == one.audio.shape
        assert logits.dtype == made.soft[modality].dtype == np.float32
        assert made.hard[modality].dtype == np.bool_
        assert np.isfinite(logits[np.broadcast_to(valid(one), logits.shape)]).all()
        assert ((made.soft[modality] >= 0) & (made.soft[modality] <= 1)).all()
    assert any(labels.any() for labels in made.hard.values())


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_hard_labels_are_logits_above_thresholds_and_equal_soft_labels_above_one_half(
    name: str, generators: Mapping[str, Generators], seed: int
) -> None:
    one = world(seed=seed, failed=(3,))
    made = made_by(name, one, generators[name])
    for modality, logits in made.logits._asdict().items():
        may_be_called = one.weak[:, None] & valid(one)
        above = (logits > made.thresholds[modality]) & may_be_called
        np.testing.assert_array_equal(made.hard[modality], above)
        if GENERATORS[name].soft == "probability":
            with np.errstate(over="ignore"):
                wanted = np.where(may_be_called, 1 / (1 + np.exp(-logits.astype(np.float64))), 0)
            np.testing.assert_allclose(made.soft[modality], wanted, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(made.soft[modality] > 0.5, above)


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_nothing_is_labelled_outside_the_weak_label_in_padding_or_in_failed_clips(
    name: str, generators: Mapping[str, Generators], seed: int
) -> None:
    one = world(seed=seed, failed=(0, 5)).padded(2)
    made = made_by(name, one, generators[name])
    forbidden = ~(one.weak[:, None] & valid(one))
    for modality in Logits._fields:
        assert not made.hard[modality][forbidden].any()
        assert not made.soft[modality][forbidden].any()


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_permuting_the_videos_permutes_the_labels(name: str, generators: Mapping[str, Generators], seed: int) -> None:
    one = world(seed=seed, failed=(7,))
    order = np.random.default_rng(seed).permutation(len(one.lengths))
    fitted, thresholds = fitted_on(name, one, generators[name])
    straight, mixed = (
        labelled_by(name, world_, generators[name], fitted, thresholds) for world_ in (one, one.rows(order))
    )
    assert_close(Logits(*(each[order] for each in straight.logits)), mixed.logits)
    _, refitted = fitted_on(name, one.rows(order), generators[name])
    for modality, cuts in thresholds.items():
        np.testing.assert_allclose(refitted[modality], cuts, rtol=0, atol=1e-3)
        clear = np.abs(straight.logits._asdict()[modality][order] - cuts) > 1e-3
        np.testing.assert_array_equal(straight.hard[modality][order] & clear, mixed.hard[modality] & clear)


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_permuting_the_classes_permutes_the_labels(name: str, generators: Mapping[str, Generators], seed: int) -> None:
    one = world(seed=seed)
    order = np.random.default_rng(seed).permutation(len(one.classes)).tolist()
    straight, mixed = made_by(name, one, generators[name]), made_by(name, one.columns(order), generators[name])
    assert_close(Logits(*(each[:, :, order] for each in straight.logits)), mixed.logits, tolerance=1e-3)
    for modality, cuts in straight.thresholds.items():
        np.testing.assert_allclose(mixed.thresholds[modality], cuts[order], rtol=0, atol=1e-3)


@METHODS
@SEVERAL
@given(seed=SEEDS, more=st.integers(1, 4))
def test_padding_never_changes_valid_seconds(
    name: str, generators: Mapping[str, Generators], seed: int, more: int
) -> None:
    one = world(seed=seed, failed=(2,))
    plain, padded = (made_by(name, each, generators[name]) for each in (one, one.padded(more)))
    segments = one.audio.shape[1]
    assert_close(plain.logits, Logits(*(each[:, :segments] for each in padded.logits)))
    for modality, cuts in plain.thresholds.items():
        np.testing.assert_allclose(padded.thresholds[modality], cuts, rtol=0, atol=1e-4)


@METHODS
def test_the_same_seed_gives_the_same_bytes(name: str, generators: Mapping[str, Generators]) -> None:
    one, other = (made_by(name, world(seed=5), generators[name]) for _ in range(2))
    assert one.fitted.keys() == other.fitted.keys()
    for array in one.fitted:
        np.testing.assert_array_equal(one.fitted[array], other.fitted[array])
    for modality in Logits._fields:
        np.testing.assert_array_equal(one.thresholds[modality], other.thresholds[modality])
        np.testing.assert_array_equal(one.soft[modality], other.soft[modality])


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_a_clip_by_itself_gets_the_labels_it_gets_among_others(
    name: str, generators: Mapping[str, Generators], seed: int
) -> None:
    one = world(12, seed=seed)
    fitted, _ = fitted_on(name, one, generators[name])
    labels = GENERATORS[name].labeller(generators[name], fitted)
    together = labels(one.evidence)
    for row in (0, 7):
        alone = labels(one.rows([row]).evidence)
        assert_close(Logits(*(each[[row]] for each in together)), alone)


@METHODS
@SEVERAL
@given(seed=SEEDS)
def test_a_class_that_never_occurs_and_clips_of_one_second_are_labelled(
    name: str, generators: Mapping[str, Generators], seed: int
) -> None:
    one = world(seed=seed, shortest=1)
    one.lengths[:6] = 1
    for array in (one.audio, one.visual):
        array[:6, 1:] = False
        array[:, :, 2] = False
    for modality in Logits._fields:
        one.features[modality][:6, 1:] = np.nan
    one.weak[:, 2] = False
    one.weak[~one.weak.any(axis=1), 0] = True
    made = made_by(name, one, generators[name])
    for modality, soft in made.soft.items():
        assert not soft[:, :, 2].any()
        assert not np.isnan(made.thresholds[modality]).any()
        short = soft[:6, 0][one.weak[:6]]
        assert np.isfinite(short).all()
        assert GENERATORS[name].soft == "margin" or (short > 0).any()


@METHODS
def test_a_single_clip_of_one_second_in_arrays_of_one_second_is_labelled(
    name: str, generators: Mapping[str, Generators]
) -> None:
    fitted, thresholds = fitted_on(name, world(seed=1), generators[name])
    single = world(1, segments=1, training=0, seed=2)
    made = labelled_by(name, single, generators[name], fitted, thresholds)
    assert made.hard["audio"].shape == (1, 1, 4)
    assert np.isfinite(made.logits.audio).all()


@METHODS
def test_the_stages_store_what_the_method_says(name: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path, world(30, failed=(4,)))
    for kind in ("uwav", "ear"):
        stored_generator(bench.store, kind)
    cuts = bench.calibrate(name, folds=2) if name in CALIBRATED else None
    labels = bench.label(name, thresholds="fit" if cuts else None)
    assert verify(labels).is_sound
    assert cuts is None or verify(cuts).is_sound
    one = bench.world
    runs = {role: bench.store.get(reference) for role, reference in generator_inputs(name).items()}
    fitted = {} if cuts is None else _fitted(cuts)
    said = GENERATORS[name].labeller(runs, fitted)(one.evidence)
    for modality in Logits._fields:
        logits, thresholds = labels.array(f"{modality}_logits"), labels.array(f"{modality}_thresholds")
        np.testing.assert_allclose(logits, getattr(said, modality), rtol=0, atol=1e-4)
        called = (logits > thresholds) & one.weak[:, None] & valid(one)
        np.testing.assert_array_equal(labels.array(f"{modality}_hard"), called)
        assert called.any()
    np.testing.assert_array_equal(labels.array("status"), one.status)
    assert labels.described["soft"] == GENERATORS[name].soft


def _fitted(cuts: object) -> Fitted:
    from avvp_pipe.stages.generators import cuts_of
    from avvp_pipe.store import Artifact

    assert isinstance(cuts, Artifact)
    return cuts_of(GENERATORS[cuts.attrs["method"]], cuts, cuts.attrs["classes"]).fitted


@pytest.mark.parametrize("name", EXACT)
def test_methods_without_a_network_say_the_same_to_the_last_bit_whatever_stands_beside(
    name: str, generators: Mapping[str, Generators]
) -> None:
    one = world(seed=3)
    fitted, _ = fitted_on(name, one, generators[name])
    labels = GENERATORS[name].labeller(generators[name], fitted)
    for modality in Logits._fields:
        together = getattr(labels(one.evidence), modality)
        np.testing.assert_array_equal(getattr(labels(one.rows([4, 5]).evidence), modality), together[4:6])
