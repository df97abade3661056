"""Calibration fits every class on the clips that count; thresholds make soft and hard labels that agree."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages.blocks import thresholds
from avvp_pipe.stages.blocks.thresholds import (
    best_f1_threshold,
    calibrate,
    class_minimum,
    hard_labels,
    soft_labels,
    stack_curves,
)

INF = np.inf
Floats = NDArray[np.float32]
Labels = NDArray[np.bool_]


# Calibration of a whole set


def validation_set(seed: int = 0) -> tuple[Floats, Labels, Labels]:
    """Logits that follow the labels with noise, 12 clips of 10 seconds and 4 classes; weak labels OR in time."""
    random = np.random.default_rng(seed)
    labels = random.random((12, 10, 4)) < 0.3
    weak = labels.any(axis=1) & (random.random((12, 4)) < 0.9)
    logits = (labels + random.normal(scale=0.8, size=labels.shape)).astype(np.float32)
    return logits, labels, weak


def test_calibration_masks_each_class_by_the_weak_labels_and_sweeps_it() -> None:
    logits, labels, weak = validation_set()
    calibration = calibrate(logits, labels, weak)
    for c in range(4):
        masked = np.where(weak[:, c, None], logits[:, :, c], -INF).ravel()
        fit = best_f1_threshold(masked, labels[:, :, c].ravel())
        assert calibration.thresholds[c] == np.float32(fit.threshold)
        assert calibration.f1[c] == fit.f1 == calibration.fits[c].f1
        assert (calibration.precision[c], calibration.recall[c]) == (fit.precision, fit.recall)
    assert calibration.thresholds.dtype == np.float32
    assert calibration.failed_clips == calibration.undefined == ()


def test_calibrated_f1_is_that_of_the_hard_labels() -> None:
    logits, labels, weak = validation_set()
    calibration = calibrate(logits, labels, weak)
    hard = hard_labels(logits, calibration.thresholds, weak)
    for c in range(4):
        right = (hard & labels)[..., c].sum()
        assert calibration.f1[c] == 2 * right / (hard[..., c].sum() + labels[..., c].sum())


def test_padding_and_failed_clips_do_not_move_a_threshold() -> None:
    logits, labels, weak = validation_set()
    lengths = np.full(12, 10)
    plain = calibrate(logits[1:], labels[1:], weak[1:])
    padded = np.concatenate([logits, np.full((12, 3, 4), np.nan, dtype=np.float32)], axis=1)
    padded[0] = np.nan
    more = np.concatenate([labels, np.ones((12, 3, 4), dtype=bool)], axis=1)
    both = calibrate(padded, more, weak, lengths=lengths)
    np.testing.assert_array_equal(both.thresholds, plain.thresholds)
    np.testing.assert_array_equal(both.f1, plain.f1)
    assert both.failed_clips == (0,)


def test_a_clip_that_is_partly_nan_is_refused() -> None:
    logits, labels, weak = validation_set()
    logits[3, 2, 1] = np.nan
    with pytest.raises(ValueError, match="clip 3 has 1 NaN"):
        calibrate(logits, labels, weak)


def test_nothing_but_failed_clips_is_an_error() -> None:
    logits, labels, weak = validation_set()
    with pytest.raises(ValueError, match="12 of 12 clips hold no logits"):
        calibrate(np.full_like(logits, np.nan), labels, weak)


def test_positives_outside_the_weak_label_count_or_are_ignored() -> None:
    logits = np.array([[[-1.0], [2.0]], [[0.0], [3.0]]], dtype=np.float32)
    labels = np.array([[[0], [1]], [[1], [1]]])
    weak = np.array([[True], [False]])
    counted = calibrate(logits, labels, weak)
    ignored = calibrate(logits, labels, weak, positives_outside_weak="ignore")
    assert counted.recall[0] == pytest.approx(1 / 3)
    assert ignored.recall[0] == 1.0
    assert counted.thresholds[0] == ignored.thresholds[0] == 0.5


def test_class_agnostic_calibration_fits_one_threshold_for_all() -> None:
    logits, labels, weak = validation_set()
    calibration = calibrate(logits, labels, weak, mode="class-agnostic")
    masked = np.where(weak[:, None, :], logits, -INF)
    fit = best_f1_threshold(masked.ravel(), labels.ravel())
    assert len(calibration.fits) == 1
    np.testing.assert_array_equal(calibration.thresholds, np.full(4, fit.threshold, dtype=np.float32))
    per_class = calibrate(logits, labels, weak)
    assert (calibration.f1 <= per_class.f1).all()


def test_a_class_without_positives_is_listed_and_spares_the_others() -> None:
    logits, labels, weak = validation_set()
    labels[:, :, 2] = False
    calibration = calibrate(logits, labels, weak)
    assert calibration.undefined == (2,)
    assert calibration.thresholds[2] == INF
    assert np.isnan(calibration.f1[2])
    assert not hard_labels(logits, calibration.thresholds, weak)[..., 2].any()
    with pytest.raises(ValueError, match=r"no threshold has an F1 for classes \[2\]"):
        calibrate(logits, labels, weak, no_positives="error")


def test_wrong_shapes_and_choices_are_refused() -> None:
    logits, labels, weak = validation_set()
    with pytest.raises(ValueError, match="weak must be"):
        calibrate(logits, labels, weak.T)
    with pytest.raises(ValueError, match="there are per-class, class-agnostic"):
        calibrate(logits, labels, weak, mode="global")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are count, ignore"):
        calibrate(logits, labels, weak, positives_outside_weak="drop")  # type: ignore[arg-type]


def test_curves_are_stacked_with_nan_at_the_end() -> None:
    curves = [
        best_f1_threshold([0.0, 1.0, 2.0], [0, 1, 1]).curve,
        best_f1_threshold([0.0, 0.0, 0.0], [0, 1, 1]).curve,
        best_f1_threshold([0.0], [0]).curve,
    ]
    table = stack_curves(curves)
    assert table.shape == (4, 3, 3)
    np.testing.assert_array_equal(table[0, 0], curves[0].thresholds)
    np.testing.assert_array_equal(np.isnan(table[3]), [[False] * 3, [False, True, True], [True] * 3])


# Labels


def test_soft_labels_are_sigmoids_of_half_the_margin() -> None:
    # UWAV's release divides the margin by two; eq. 12 of the paper does not.
    logits, thresholds, weak = np.array([[3.0, 3.0]]), np.array([1.0, 1.0]), [True, False]
    released = soft_labels(logits, thresholds, weak)
    np.testing.assert_allclose(released, [[1 / (1 + np.exp(-1.0)), 0.0]], rtol=1e-6)
    paper = soft_labels(logits, thresholds, weak, temperature=1.0)
    np.testing.assert_allclose(paper, [[1 / (1 + np.exp(-2.0)), 0.0]], rtol=1e-6)
    assert released.dtype == np.float32


@given(
    arrays(np.float32, (2, 5, 3), elements=st.one_of(st.floats(-100, 100, width=32), st.just(np.nan))),
    arrays(np.float32, 3, elements=st.one_of(st.floats(-50, 50, width=32), st.sampled_from([-INF, INF]))),
    arrays(bool, (2, 3)),
)
def test_soft_labels_pass_one_half_where_hard_labels_switch(z: Floats, theta: Floats, weak: Labels) -> None:
    soft = soft_labels(z, theta, weak, floor=np.full(3, -100, dtype=np.float32))
    hard = hard_labels(z, theta, weak)
    assert ((soft >= 0) & (soft <= 1)).all()
    assert (soft[hard] >= 0.5).all()
    assert (soft[~hard] <= 0.5).all()


@given(arrays(np.float32, (4, 3), elements=st.floats(-1, 1, width=32)), st.floats(-1, 1), st.floats(0, 0.5))
def test_raising_a_threshold_never_adds_a_label(logits: Floats, low: float, step: float) -> None:
    loose, tight = (hard_labels(logits, np.full(3, t), np.ones(3, bool)) for t in (low, low + step))
    assert not (tight & ~loose).any()


def test_a_logit_at_its_threshold_is_not_called() -> None:
    assert not hard_labels(np.array([[0.5]]), np.array([0.5]), [True]).any()


def test_an_open_threshold_takes_the_lowest_logit_less_one() -> None:
    logits = np.array([[[-4.0], [2.0]]], dtype=np.float32)
    weak, theta = np.array([[True]]), np.array([-INF])
    assert hard_labels(logits, theta, weak).all()
    soft = soft_labels(logits, theta, weak, floor=class_minimum(logits))
    # The lowest logit lies one above the stand-in threshold: sigmoid(1 / 2).
    np.testing.assert_allclose(soft[0, :, 0], 1 / (1 + np.exp([-0.5, -3.5])), rtol=1e-6)


@pytest.mark.parametrize("floor", [None, np.array([INF, 0.0]), np.array([0.0])])
def test_an_open_threshold_without_a_floor_has_no_soft_label(floor: Any) -> None:
    with pytest.raises(ValueError, match=r"classes \[0\] are -inf"):
        soft_labels(np.zeros((1, 2)), np.array([-INF, 0.0]), [True, True], floor=floor)


def test_a_closed_threshold_and_a_failed_clip_give_no_label() -> None:
    logits = np.array([[1e30, np.nan], [INF, np.nan]], dtype=np.float32)
    theta = np.array([INF, 0.0])
    assert not soft_labels(logits, theta, [True, True]).any()
    assert not hard_labels(logits, theta, [True, True]).any()


def test_the_class_minimum_skips_padding_and_failed_clips() -> None:
    logits = np.array([[[1.0, 5.0], [-9.0, -9.0]], [[np.nan] * 2] * 2, [[2.0, 3.0], [4.0, 4.0]]])
    np.testing.assert_array_equal(class_minimum(logits, lengths=[1, 2, 2]), [1.0, 3.0])
    parts = [class_minimum(logits[:2], lengths=[1, 2]), class_minimum(logits[2:])]
    np.testing.assert_array_equal(np.minimum(*parts), [1.0, 3.0])
    assert (class_minimum(logits[1:2]) == INF).all()


def test_labels_of_mismatched_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="go with thresholds"):
        hard_labels(np.zeros((2, 3)), np.zeros(2), [True] * 3)
    with pytest.raises(ValueError, match=r"classes \[1\] are NaN"):
        hard_labels(np.zeros((2, 2)), np.array([0.0, np.nan]), [True] * 2)
    with pytest.raises(ValueError, match="temperature must be positive"):
        soft_labels(np.zeros((2, 2)), np.zeros(2), [True] * 2, temperature=0.0)


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(thresholds)
    assert result.attempted > 0
    assert result.failed == 0
