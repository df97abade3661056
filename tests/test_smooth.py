"""Smoothing over time: a Gaussian that stays within its clip, and a width that the validation split chooses."""

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages.blocks import modality_f
from avvp_pipe.stages.blocks.thresholds import calibrate, hard_labels
from avvp_pipe.stages.generators import smooth, valor
from avvp_pipe.stages.generators.records import Evidence, FitSettings, Labelled, SegmentFeatures
from avvp_pipe.stages.generators.smooth import PRIOR_CLIPS, REACH, WIDTHS, class_widths, gaussian, width_of
from avvp_pipe.stages.metrics import avvp_scores, class_scores

Floats = NDArray[np.float32]


def by_hand(clip: NDArray[Any], width: float) -> NDArray[np.float64]:
    """(T, C) of one clip, second by second and class by class."""
    found = np.full(clip.shape, np.nan)
    for t in range(len(clip)):
        for c in range(clip.shape[1]):
            total = weight = 0.0
            for u in range(len(clip)):
                near = u == t or abs(u - t) <= math.ceil(REACH * width)
                if np.isnan(clip[u, c]) or not near:
                    continue
                share = 1.0 if u == t else math.exp(-((u - t) ** 2) / (2 * width**2))
                total, weight = total + share * float(clip[u, c]), weight + share
            if not np.isnan(clip[t, c]):
                found[t, c] = total / weight
    return found


def test_the_docstring_examples_hold() -> None:
    for module in (smooth, modality_f):
        result = doctest.testmod(module)
        assert result.attempted > 0
        assert result.failed == 0


@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 3)),
        elements=st.floats(-9, 9, width=32),
    ),
    st.sampled_from(WIDTHS),
    st.integers(0, 3),
)
def test_the_gaussian_is_a_weighted_mean_of_the_clip_s_own_seconds(logits: Floats, width: float, padding: int) -> None:
    logits[0, max(logits.shape[1] - padding, 1) :] = np.nan
    found = gaussian(logits, width)
    assert found.dtype == np.float32
    for clip, smoothed in zip(logits, found, strict=True):
        np.testing.assert_allclose(smoothed, by_hand(clip, width), rtol=1e-5, atol=1e-5)


def test_a_width_of_zero_changes_nothing_and_a_constant_stays_what_it_is() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 7, 2)).astype(np.float32)
    np.testing.assert_array_equal(gaussian(logits, 0.0), logits)
    np.testing.assert_allclose(gaussian(np.full((1, 9, 1), 2.5), 3.0), 2.5, rtol=1e-6)


def test_every_class_may_have_a_width_of_its_own() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 7, 3)).astype(np.float32)
    widths = np.array([0.0, 1.0, 4.0])
    found = gaussian(logits, widths)
    for c, width in enumerate(widths):
        np.testing.assert_allclose(found[:, :, c], gaussian(logits, width)[:, :, c], rtol=1e-6)


def test_padding_and_neighbouring_clips_change_no_bit() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 7, 3)).astype(np.float32)
    padded = np.concatenate([logits, np.full((4, 5, 3), np.nan, np.float32)], axis=1)
    np.testing.assert_array_equal(gaussian(padded, 1.5)[:, :7], gaussian(logits, 1.5))
    np.testing.assert_array_equal(gaussian(logits[2:3], 1.5), gaussian(logits, 1.5)[2:3])
    assert np.isnan(gaussian(padded, 1.5)[:, 7:]).all()


def flickering(seed: int, *, lost: float) -> tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]:
    """Events of five seconds and more, whose evidence drops out with probability `lost`, second by second."""
    random = np.random.default_rng(seed)
    truth = np.zeros((80, 10, 3), bool)
    for n in range(80):
        for c in range(3):
            start = random.integers(0, 6)
            truth[n, start : start + random.integers(5, 9), c] = True
    seen = truth & (random.random(truth.shape) > lost)
    logits = (3.0 * seen + random.normal(scale=0.2, size=truth.shape)).astype(np.float32)
    return logits, truth, np.ones((80, 3), bool)


def test_a_width_is_chosen_where_evidence_drops_out_and_none_where_it_does_not() -> None:
    lengths = np.full(80, 10)
    assert width_of(*flickering(0, lost=0.0), lengths) == 0.0
    assert 0.5 <= width_of(*flickering(0, lost=0.3), lengths) <= 2.5


def official(logits: Floats, truth: NDArray[np.bool_], weak: NDArray[np.bool_]) -> float:
    hard = hard_labels(logits, calibrate(logits, truth, weak).thresholds, weak)
    return avvp_scores(hard, hard, truth, truth)["segment"]["A"]


def test_the_one_width_is_that_of_the_best_official_f_by_an_exhaustive_look() -> None:
    logits, truth, weak = flickering(1, lost=0.25)
    found = [official(gaussian(logits, width), truth, weak) for width in WIDTHS]
    assert width_of(logits, truth, weak, np.full(80, 10)) == WIDTHS[int(np.argmax(found))]


def test_a_class_s_width_is_that_of_its_own_best_f_shrunk_towards_what_suits_all() -> None:
    (logits, truth, weak), (steady, also, _) = flickering(1, lost=0.35), flickering(1, lost=0.0)
    logits[:, :, 2], truth[:, :, 2] = steady[:, :, 2], also[:, :, 2]
    weak[5:, 1] = False  # few clips
    table = []
    for width in WIDTHS:
        smoothed = gaussian(logits, width)
        hard = hard_labels(smoothed, calibrate(smoothed, truth, weak).thresholds, weak)
        scores = class_scores(hard, hard, truth, truth)
        table.append((scores["segment"]["A"] + scores["event"]["A"]) / 200)
    wanted = []
    for c, clips in enumerate(weak.sum(axis=0)):
        shrunk = [(clips * row[c] + PRIOR_CLIPS * row.mean()) / (clips + PRIOR_CLIPS) for row in table]
        wanted.append(WIDTHS[int(np.argmax(shrunk))])
    assert class_widths(logits, truth, weak, np.full(80, 10)).tolist() == wanted
    assert wanted[2] < wanted[0]


def evidence(seed: int = 0) -> tuple[Evidence, Labelled]:
    """Features in which each class is an axis, so that logits are `flickering`."""
    audio, heard, weak = flickering(seed, lost=0.3)
    visual, seen, _ = flickering(seed + 1, lost=0.0)
    features = SegmentFeatures(
        audio, visual, np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32), 0.0, 0.0, np.full(80, 10, np.int32)
    )
    return Evidence(features, weak, tuple(f"clip{n}" for n in range(80))), Labelled(heard, seen)


def test_each_modality_gets_the_width_that_it_needs_and_labels_by_it() -> None:
    shown, labelled = evidence()
    fit = smooth.fit(shown, labelled, {}, FitSettings())
    heard, seen = fit.fitted["audio_widths"], fit.fitted["visual_widths"]
    assert (heard >= 0.5).all()
    assert (seen == 0.0).all()
    found = smooth.labeller({}, fit.fitted)(shown)
    np.testing.assert_array_equal(found.audio, fit.logits.audio)
    np.testing.assert_array_equal(found.audio, gaussian(valor.logits(shown).audio, heard))
    np.testing.assert_array_equal(found.visual, valor.logits(shown).visual)
    one = smooth.fit(shown, labelled, {}, FitSettings(smooth_widths="one"))
    assert set(one.fitted["audio_widths"].tolist()) == {
        width_of(valor.logits(shown).audio, labelled.audio, shown.weak, np.full(80, 10))
    }


def test_a_clip_of_one_second_a_failed_clip_and_a_class_without_positives_are_no_trouble() -> None:
    logits, truth, weak = flickering(2, lost=0.3)
    lengths = np.full(80, 10)
    lengths[0] = 1
    logits[0, 1:] = np.nan
    logits[1] = np.nan
    truth[:, :, 2] = False
    assert width_of(logits, truth, weak, lengths) in WIDTHS
    assert set(class_widths(logits, truth, weak, lengths).tolist()) <= set(WIDTHS)
    np.testing.assert_array_equal(gaussian(logits, 2.0)[0, 0], logits[0, 0])


def test_widths_are_not_chosen_from_clips_that_all_failed() -> None:
    logits, truth, weak = flickering(2, lost=0.3)
    with pytest.raises(ValueError, match="no segment to calibrate on"):
        width_of(np.full_like(logits, np.nan), truth, weak, np.full(80, 10))
