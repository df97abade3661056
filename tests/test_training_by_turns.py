"""Groups of parameters that are stepped one after the other within a batch."""

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor

from avvp_pipe.stages.blocks.training import Moment, Optimiser, Schedule, StepSchedule, seeded
from tests.training_problem import EPOCHS, ByTurns, same


def test_groups_are_stepped_one_after_the_other_within_a_batch() -> None:
    problem = ByTurns()
    last = problem.last.weight.detach().clone()
    problem.fit(schedule=Schedule(epochs=1, warmup=0, peak=1e-2, minimum=1e-3), clips=4)
    before, between = problem.first_weights
    assert not torch.equal(before, between), "the first group was not stepped before the second was asked"
    assert torch.equal(problem.first.weight, between), "the second group's step reached the first one's weights"
    assert not torch.equal(problem.last.weight, last)


def test_groups_of_their_own_are_those_of_separate_optimisers() -> None:
    """Against the loop as one would write it for two optimisers."""
    rows, ours, theirs = torch.arange(4), ByTurns(), ByTurns()
    optimisers = {name: torch.optim.Adam(group, lr=1e-2) for name, group in theirs.groups.items()}
    theirs.model.train()
    ours.fit(
        clips=4,
        schedule=StepSchedule(epochs=1, peak=1e-2),
        optimiser=Optimiser(form="adam", weight_decay=0, clip_norm=None),
        batches=lambda: [rows],
    )
    with seeded(3, 1):
        for name, terms in theirs.terms(rows, ours.moments[0]):
            optimisers[name].zero_grad()
            torch.autograd.backward(torch.stack(tuple(terms.values())).sum())
            optimisers[name].step()
    assert same(ours.model.state_dict(), theirs.model.state_dict())


def test_an_objective_is_told_when_it_is_asked() -> None:
    problem = ByTurns()
    history = problem.fit().history
    wanted = [
        (epoch, EPOCHS, batch / 3, 3 * (epoch - 1) + batch) for epoch in range(1, EPOCHS + 1) for batch in range(3)
    ]
    assert [(one.epoch, one.epochs, one.progress, one.step) for one in problem.moments] == wanted
    parts = ("entropy_first", "size_first", "entropy_last", "size_last")
    assert history[0]["loss"] == pytest.approx(sum(history[0][name] for name in parts))


def test_groups_that_name_a_term_alike_are_refused_and_divergence_names_the_group() -> None:
    for term, message in (("size", "size came twice"), ("nan", "nan = nan.* of last;")):
        problem = ByTurns()

        def terms(
            rows: Tensor, moment: Moment, name: str = term, problem: ByTurns = problem
        ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
            yield "first", {"size": problem.model(problem.features[rows]).square().mean()}
            value = problem.model(problem.features[rows]).square().mean()
            yield "last", {name: value * (math.nan if name == "nan" else 1)}

        problem.terms = terms  # type: ignore[method-assign]
        with pytest.raises(ValueError, match=message):
            problem.fit()
