"""The bootstrap: each draw's threshold is the one that fitting on the drawn clips would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from avvp_pipe.stages.blocks import bootstrap
from avvp_pipe.stages.blocks.bootstrap import bootstrap_thresholds, spread
from avvp_pipe.stages.blocks.cells import Cells, cells_of
from avvp_pipe.stages.blocks.thresholds import calibrate

INF = np.inf
RESAMPLES = 25
CASES = st.tuples(
    # Few values, so that draws hold ties, and clips whose every logit is tied with another clip's.
    arrays(np.float32, (5, 3, 2), elements=st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 3.0])),
    arrays(bool, (5, 3, 2)),
    arrays(bool, (5, 2)),
    arrays(np.int64, 5, elements=st.integers(1, 3)),
    st.integers(0, 5),
)


def by_hand(cells: Cells, seed: int, *, class_agnostic: bool, always: bool) -> NDArray[np.float32]:
    """Copy the drawn clips as often as they were drawn, and fit on the copies."""
    names = sorted(set(cells.clips.tolist()))
    random = np.random.default_rng(seed)
    found = []
    for counts in random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES):
        drawn = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
        logits = np.concatenate([cells.logits[cells.clips == name] for name in drawn])
        labels = np.concatenate([cells.labels[cells.clips == name] for name in drawn])
        finite = np.isfinite(logits)
        fit = calibrate(
            np.where(finite, logits, 0)[:, None],
            labels[:, None],
            finite,
            mode="class-agnostic" if class_agnostic else "per-class",
            no_positives="always" if always else "never",
        )
        found.append(fit.thresholds)
    return np.array(found, np.float32)


@given(CASES, st.booleans(), st.booleans())
def test_each_draw_is_fitted_as_if_its_clips_had_been_copied(
    case: tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64], int],
    class_agnostic: bool,
    always: bool,
) -> None:
    logits, labels, weak, lengths, seed = case
    cells = cells_of(logits, labels, weak, lengths=lengths)
    found = bootstrap_thresholds(cells, resamples=RESAMPLES, seed=seed, class_agnostic=class_agnostic, always=always)
    np.testing.assert_array_equal(found, by_hand(cells, seed, class_agnostic=class_agnostic, always=always))


def test_draws_are_summed_in_parts_without_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels = random.random((20, 4, 3)) < 0.5
    logits = (labels + random.normal(size=labels.shape)).astype(np.float32)
    cells = cells_of(logits, labels, labels.any(axis=1))
    whole = bootstrap_thresholds(cells, resamples=30, seed=0)
    monkeypatch.setattr(bootstrap, "CELLS_AT_ONCE", 100)
    np.testing.assert_array_equal(bootstrap_thresholds(cells, resamples=30, seed=0), whole)
    assert len(np.unique(whole)) > 10


def test_more_clips_bring_the_ends_closer_together() -> None:
    random = np.random.default_rng(0)

    def width(clips: int) -> float:
        labels = random.random((clips, 10, 8)) < 0.5
        logits = (2 * labels + random.normal(size=labels.shape)).astype(np.float32)
        low, high = spread(bootstrap_thresholds(cells_of(logits, labels, labels.any(axis=1)), resamples=100, seed=0))
        return float((high - low).mean())

    assert width(640) < width(40) / 2


def test_failed_clips_are_not_drawn_and_padding_does_not_count() -> None:
    random = np.random.default_rng(0)
    labels = random.random((12, 5, 2)) < 0.5
    logits = (labels + random.normal(size=labels.shape)).astype(np.float32)
    weak, lengths = labels.any(axis=1), np.full(12, 3)
    plain = bootstrap_thresholds(cells_of(logits[:, :3], labels[:, :3], weak), resamples=20, seed=1)
    logits[:, 3:] = np.nan
    failed = np.concatenate([np.full((1, 5, 2), np.nan, np.float32), logits])
    cells = cells_of(
        failed, np.insert(labels, 0, True, axis=0), np.insert(weak, 0, True, axis=0), lengths=[3, *lengths]
    )
    assert cells.failed == (0,)
    np.testing.assert_array_equal(bootstrap_thresholds(cells, resamples=20, seed=1), plain)


def test_the_spread_is_made_of_samples_and_keeps_the_infinities() -> None:
    samples = np.arange(100, dtype=np.float32)[:, None].repeat(4, axis=1)
    samples[:5, 1], samples[:4, 2], samples[95:, 3] = -INF, -INF, INF
    low, high = spread(samples)
    np.testing.assert_array_equal(low, [4, -INF, 4, 4])
    np.testing.assert_array_equal(high, [94, 94, 94, 94])
    samples[94:, 3] = INF
    assert spread(samples)[1, 3] == INF
