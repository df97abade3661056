"""The training loop: order, randomness, history, the best epoch, and when it stops."""

import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.training import DivergedError, Optimiser, Schedule, fit
from tests.training_problem import (
    CLIPS,
    EPOCHS,
    SCHEDULE,
    InterruptedRunError,
    Problem,
    assert_same,
    constant_scores,
    interrupt_after,
    same,
)


def test_every_epoch_sees_every_clip_once_in_an_order_of_its_own() -> None:
    problem = Problem()
    problem.fit()
    orders = [list(chain.from_iterable(problem.seen[start : start + 3])) for start in range(0, 3 * EPOCHS, 3)]
    assert all(sorted(order) == list(range(CLIPS)) for order in orders)
    assert len({tuple(order) for order in orders}) == EPOCHS
    assert [len(rows) for rows in problem.seen[:3]] == [4, 4, 3]


def test_the_same_seed_trains_alike_and_another_does_not() -> None:
    assert_same(Problem().fit(), Problem().fit())
    assert not same(Problem().fit().last, Problem().fit(seed=4).last)


def test_training_leaves_the_callers_random_numbers_as_they_were() -> None:
    before = torch.get_rng_state()
    Problem().fit()
    assert torch.equal(torch.get_rng_state(), before)


def test_training_learns() -> None:
    history = Problem().fit(schedule=Schedule(epochs=40, warmup=4, peak=3e-2, minimum=1e-3)).history
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    assert max(record["accuracy"] for record in history) > 0.9


def test_history_holds_means_over_clips_and_the_rate_of_each_epoch() -> None:
    problem, losses = Problem(), []

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        terms = Problem.loss(problem, rows)
        losses.append((len(rows), {name: value.item() for name, value in terms.items()}))
        return terms

    problem.loss = loss  # type: ignore[method-assign]
    for epoch, record in enumerate(problem.fit().history, 1):
        batches = losses[3 * (epoch - 1) : 3 * epoch]
        means = {name: sum(size * terms[name] for size, terms in batches) / CLIPS for name in ("entropy", "size")}
        assert record["epoch"] == epoch
        assert record["rate"] == SCHEDULE.rate(epoch)
        assert {name: record[name] for name in means} == pytest.approx(means)
        assert record["loss"] == pytest.approx(sum(means.values()))


def test_the_best_epoch_is_the_first_of_the_highest_score_and_the_model_ends_with_it() -> None:
    problem, states = Problem(), []

    def progress(record: Mapping[str, float]) -> None:
        states.append({name: value.clone() for name, value in problem.model.state_dict().items()})

    fitted = problem.fit(validate=constant_scores(0.1, 0.7, 0.3, 0.7, 0.2), progress=progress)
    assert fitted.best_epoch == 2
    assert same(fitted.best, states[1])
    assert same(fitted.last, states[4])
    assert same(problem.model.state_dict(), states[1])


def test_without_validation_the_last_epoch_is_the_best() -> None:
    fitted = Problem().fit(validate=None, select=None)
    assert fitted.best_epoch == EPOCHS
    assert same(fitted.best, fitted.last)


def test_dropout_acts_in_training_and_rests_in_validation() -> None:
    problem, modes = Problem(), []

    def validate() -> Mapping[str, float]:
        modes.append((problem.model.training, torch.is_grad_enabled()))
        return {"accuracy": 0.0}

    problem.fit(validate=validate)
    assert modes == [(False, False)] * EPOCHS
    no_dropout = Problem()
    no_dropout.model[2] = nn.Dropout(0.0)
    assert not same(no_dropout.fit().last, Problem().fit().last)


def test_gradients_are_clipped_to_the_norm_asked_for() -> None:
    for clip_norm, expected in ((0.01, True), (None, False)):
        problem = Problem()
        problem.fit(optimiser=Optimiser(clip_norm=clip_norm))
        squares = [p.grad.square().sum().item() for p in problem.model.parameters() if p.grad is not None]
        assert (math.sqrt(sum(squares)) <= 0.0101) is expected


def test_a_loss_that_is_not_finite_stops_with_epoch_and_batch() -> None:
    problem = Problem()

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        terms = Problem.loss(problem, rows)
        return {**terms, "size": terms["size"] * (float("nan") if len(problem.seen) == 5 else 1.0)}

    problem.loss = loss  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match=r"epoch 2, batch 2 of 3: loss = nan, entropy = 0.*, size = nan"):
        problem.fit()


def test_a_gradient_that_is_not_finite_stops_before_it_spoils_the_weights() -> None:
    problem = Problem()
    before = {name: value.clone() for name, value in problem.model.state_dict().items()}
    # The root's slope at zero is infinite although its value is not.
    problem.loss = lambda rows: {"root": (0 * problem.model(problem.features[rows])).sum().sqrt()}  # type: ignore[method-assign]
    with pytest.raises(DivergedError, match="epoch 1, batch 1 of 3: loss = 0, root = 0, norm of the gradient = nan"):
        problem.fit()
    assert same(problem.model.state_dict(), before)


def test_a_selecting_score_that_is_not_a_number_stops_with_its_epoch() -> None:
    with pytest.raises(DivergedError, match="'accuracy' is nan after epoch 2"):
        Problem().fit(validate=constant_scores(0.5, float("nan")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"select": "f1"}, "no validation score 'f1'; there are accuracy, first"),
        ({"select": "loss"}, "no validation score 'loss'; there are accuracy, first"),
        ({"select": None}, "give both or neither"),
        ({"validate": None}, "give both or neither"),
        ({"clips": 0}, "at least one"),
        ({"batch_size": 0}, "at least one"),
        ({"validate": lambda: {"loss": 1.0, "accuracy": 1.0}}, "loss came twice"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Problem().fit(**change)


@pytest.mark.parametrize("terms", [{}, {"loss": torch.zeros(())}])
def test_terms_without_names_of_their_own_are_refused(terms: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="terms"):
        fit(
            Problem().model, lambda rows: terms, clips=2, batch_size=2, schedule=SCHEDULE, optimiser=Optimiser(), seed=0
        )


@pytest.mark.parametrize("patience", [1, 2])
def test_training_stops_after_so_many_epochs_without_a_new_best_one(tmp_path: Path, patience: int) -> None:
    scores = (0.1, 0.7, 0.3, 0.7, 0.9)
    stopped = Problem().fit(validate=constant_scores(*scores), patience=patience)
    assert len(stopped.history) == 2 + patience
    assert stopped.best_epoch == 2
    file = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        Problem().fit(
            validate=constant_scores(*scores), patience=patience, checkpoint=file, progress=interrupt_after(2)
        )
    resumed = Problem().fit(validate=constant_scores(*scores[2:]), patience=patience, checkpoint=file)
    assert_same(resumed, stopped)
    again = Problem().fit(validate=constant_scores(), patience=patience, checkpoint=file)
    assert_same(again, stopped)


def test_of_equal_scores_the_last_can_win() -> None:
    fitted = Problem().fit(validate=constant_scores(0.1, 0.7, 0.3, 0.7, 0.2), ties="last")
    assert fitted.best_epoch == 4


def test_divergence_tells_where_the_last_good_state_is(tmp_path: Path) -> None:
    file, problem = tmp_path / "training.pt", Problem()

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        terms = Problem.loss(problem, rows)
        return {name: value * (math.nan if len(problem.seen) == 8 else 1) for name, value in terms.items()}

    problem.loss = loss  # type: ignore[method-assign]
    with pytest.raises(
        DivergedError, match=r"epoch 3, batch 2 of 3.*\. The state after epoch 2 is kept in .*training.pt"
    ):
        problem.fit(checkpoint=file)
    assert torch.load(file, weights_only=True)["history"][-1]["epoch"] == 2
