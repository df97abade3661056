"""Learning rates by epoch."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from avvp_pipe.stages.blocks.training import Schedule, StepSchedule


@pytest.mark.parametrize(("every", "factor"), [(10, 0.1), (6, 0.25)])
def test_steps_are_those_of_torch(every: int, factor: float) -> None:
    """HAN's and CoLeaF's loops: train an epoch, then step."""
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    theirs, ours = torch.optim.lr_scheduler.StepLR(sgd, every, factor), StepSchedule(40, 3e-4, every, factor)
    for epoch in range(1, 41):
        assert ours.rate(epoch) == pytest.approx(sgd.param_groups[0]["lr"])
        sgd.step()
        theirs.step()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"every": 0}, {"factor": 0.0}, {"factor": 1.5}, {"peak": math.inf}])
def test_steps_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a schedule has"):
        StepSchedule(**wrong)


def test_released_schedule_warms_up_and_falls_along_half_a_cosine() -> None:
    # UWAV: 80 epochs, warm-up 10, 1e-4 -> 1e-5.
    schedule = Schedule()
    for epoch in range(1, 81):
        cosine = 1e-5 + 0.5 * (1e-4 - 1e-5) * (1 + math.cos(math.pi * (epoch - 10) / 70))
        assert schedule.rate(epoch) == pytest.approx(epoch / 10 * 1e-4 if epoch < 10 else cosine)


@given(st.integers(1, 30), st.integers(0, 40))
def test_a_schedule_of_any_length_rises_to_the_peak_then_falls_to_the_minimum(epochs: int, warmup: int) -> None:
    schedule = Schedule(epochs=epochs, warmup=warmup, peak=1.0, minimum=0.1)
    rates = [schedule.rate(epoch) for epoch in range(1, epochs + 1)]
    assert all(0 < rate <= 1 for rate in rates)
    rising, falling = rates[:warmup], rates[max(warmup - 1, 0) :]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    if 0 < warmup <= epochs:
        assert rates[warmup - 1] == 1
    if warmup < epochs:
        assert rates[-1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"warmup": -1}, {"peak": 1e-6}, {"minimum": -1.0}, {"peak": math.inf}]
)
def test_a_schedule_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a schedule has"):
        Schedule(**wrong)
