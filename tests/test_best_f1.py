"""The fitted threshold achieves the F1 it reports, nothing does better, and the released one is to be had."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages.blocks import best_f1
from avvp_pipe.stages.blocks.best_f1 import Ties, best_f1_threshold

INF = np.inf
Floats = NDArray[np.float32]
Labels = NDArray[np.bool_]


def achieved(logits: Floats, labels: Labels, threshold: float) -> float:
    """F1 of the strict comparison, by the definition."""
    called = logits > np.float32(threshold)
    right = int((called & labels).sum())
    return 2 * right / (int(called.sum()) + int(labels.sum()))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Labels]:
    """Logits with ties and -inf, and labels with a positive that can be called."""
    count = draw(st.integers(1, 20))
    values = st.one_of(
        st.sampled_from([-INF, -1.0, -0.5, 0.0, 0.5]), st.floats(-(2.0**100), 2.0**100, width=32), st.just(1 + 2**-23)
    )
    logits = draw(arrays(np.float32, count, elements=values))
    labels = draw(arrays(bool, count))
    place = draw(st.integers(0, count - 1))
    logits[place], labels[place] = draw(st.sampled_from([0.0, 1.0])), True
    return logits, labels


# The sweep


@given(cases())
def test_the_reported_f1_is_achieved_and_no_threshold_does_better(case: tuple[Floats, Labels]) -> None:
    logits, labels = case
    fit = best_f1_threshold(logits, labels)
    assert fit.f1 == achieved(logits, labels, fit.threshold)
    every = [achieved(logits, labels, float(t)) for t in [-INF, *logits]]
    assert fit.f1 == max(every)


@given(cases())
def test_the_whole_curve_is_achieved(case: tuple[Floats, Labels]) -> None:
    logits, labels = case
    curve = best_f1_threshold(logits, labels).curve
    assert (np.diff(curve.thresholds[1:]) > 0).all()
    assert curve.thresholds[0] == -INF
    for threshold, precision, recall, f1 in zip(curve.thresholds, curve.precision, curve.recall, curve.f1, strict=True):
        called = logits > threshold
        assert f1 == achieved(logits, labels, threshold)
        assert precision == (called & labels).sum() / called.sum()
        assert recall == (called & labels).sum() / labels.sum()


@given(cases())
def test_of_equal_f1_the_lowest_threshold_wins(case: tuple[Floats, Labels]) -> None:
    logits, labels = case
    fit = best_f1_threshold(logits, labels)
    lower = fit.curve.f1[fit.curve.thresholds < fit.threshold]
    assert (lower < fit.f1).all()


def test_the_threshold_lies_midway_between_neighbours() -> None:
    fit = best_f1_threshold([-3.0, -1.0, 2.0, 4.0], [0, 0, 1, 1])
    assert (fit.threshold, fit.f1, fit.precision, fit.recall) == (0.5, 1.0, 1.0, 1.0)


def test_a_best_cut_at_the_first_finite_logit_is_minus_infinity() -> None:
    fit = best_f1_threshold([-INF, -INF, -1.0, 2.0], [0, 0, 1, 1])
    assert fit.threshold == -INF
    assert fit.f1 == 1.0


def test_positives_that_cannot_be_called_cost_recall() -> None:
    fit = best_f1_threshold([-INF, -1.0, 2.0], [1, 0, 1])
    assert (fit.threshold, fit.positives) == (0.5, 2)
    assert fit.f1 == pytest.approx(2 / 3)


def test_neighbouring_floats_are_told_apart() -> None:
    low = np.float32(1.0)
    high = np.nextafter(low, np.float32(2))
    higher = np.nextafter(high, np.float32(2))
    for below, above in ((low, high), (high, higher)):
        fit = best_f1_threshold(np.array([below, above]), np.array([False, True]))
        assert np.float32(fit.threshold) < above
        assert fit.f1 == 1.0


def test_a_run_of_equal_logits_is_kept_or_dropped_whole() -> None:
    logits, labels = np.array([0.0, 1.0, 1.0, 1.0], dtype=np.float32), np.array([0, 0, 1, 1])
    fit = best_f1_threshold(logits, labels)
    assert (fit.threshold, len(fit.curve.f1)) == (0.5, 2)
    assert fit.f1 == pytest.approx(0.8)


def test_the_released_sweep_may_report_an_f1_it_does_not_achieve() -> None:
    # All logits alike: the best place is inside the run, the strict comparison then calls nothing.
    logits, labels = np.zeros(4, dtype=np.float32), np.array([False, False, True, True])
    released = best_f1_threshold(logits, labels, ties="released")
    assert (released.threshold, released.f1) == (0.0, 1.0)
    assert achieved(logits, labels, released.threshold) == 0.0
    distinct = best_f1_threshold(logits, labels)
    assert distinct.threshold == -INF
    assert distinct.f1 == pytest.approx(2 / 3)


def test_golden_thresholds_of_the_released_search_agree(real_data: Path) -> None:
    golden = np.load(real_data / "golden" / "thresholds.npz")
    assert int(golden["count"]) == 40
    for case in range(40):
        logits, labels = golden[f"logits_{case}"], golden[f"labels_{case}"].astype(bool)
        fit = best_f1_threshold(logits, labels, ties="released")
        np.testing.assert_allclose(fit.threshold, golden[f"threshold_{case}"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(fit.f1, golden[f"f1_{case}"], rtol=0, atol=1e-5)
        # What the released threshold really achieves, ours reaches too.
        ours = best_f1_threshold(logits, labels)
        assert ours.f1 >= achieved(logits, labels, fit.threshold)


@given(arrays(np.float32, 30, elements=st.floats(-5, 5, width=32), unique=True), arrays(bool, 30))
def test_without_ties_both_sweeps_agree(logits: Floats, labels: Labels) -> None:
    labels[0] = True
    ties: tuple[Ties, ...] = ("distinct", "released")
    ours, released = (best_f1_threshold(logits, labels, ties=treatment) for treatment in ties)
    assert ours.f1 == released.f1
    assert ours.threshold == released.threshold


# Guards


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 0, 0]])
def test_a_class_without_a_positive_to_call_is_never_called_and_says_so(labels: list[int]) -> None:
    fit = best_f1_threshold([-INF, 0.0, 1.0], labels)
    assert fit.threshold == INF
    assert fit.undefined
    assert fit.positives == sum(labels)
    assert np.isnan(fit.f1)


def test_a_class_without_positives_is_always_called_as_released_or_an_error_on_request() -> None:
    assert best_f1_threshold([0.0, 1.0], [0, 0], no_positives="always").threshold == -INF
    with pytest.raises(ValueError, match="of 0 positives none has a finite logit"):
        best_f1_threshold([0.0, 1.0], [0, 0], no_positives="error")


@pytest.mark.parametrize("bad", [np.nan, INF])
def test_logits_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="leave failed clips out"):
        best_f1_threshold([0.0, bad], [0, 1])


def test_unknown_choices_are_refused_and_the_known_are_named() -> None:
    with pytest.raises(ValueError, match="there are distinct, released"):
        best_f1_threshold([0.0], [1], ties="unique")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there are never, always, error"):
        best_f1_threshold([0.0], [0], no_positives="skip")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="flatten clips and segments"):
        best_f1_threshold([[0.0]], [[1]])


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(best_f1)
    assert result.attempted > 0
    assert result.failed == 0
