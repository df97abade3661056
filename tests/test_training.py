"""Run as a program, this file trains until a given moment and kills itself with SIGKILL."""

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from avvp_pipe.stages.blocks.checkpoints import CheckpointError
from avvp_pipe.stages.blocks.training import (
    DivergedError,
    Fitted,
    Grouped,
    Moment,
    Optimiser,
    Schedule,
    StepSchedule,
    fit,
    seeded,
)

CLIPS, EPOCHS = 11, 5
SCHEDULE = Schedule(epochs=EPOCHS, warmup=2, peak=1e-2, minimum=1e-3)


class Problem:
    """Something small to learn, with all that training has: dropout, noise of its own, a score, several terms."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.features = torch.randn(CLIPS, 6, generator=draw)
        self.targets = (self.features[:, :2] > 0).float()
        with seeded(7):
            self.model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
        self.seen: list[list[int]] = []

    def loss(self, rows: Tensor) -> Mapping[str, Tensor]:
        self.seen.append(rows.tolist())
        noisy = self.features[rows] + 0.1 * torch.randn(len(rows), 6)
        logits = self.model(noisy)
        entropy = nn.functional.binary_cross_entropy_with_logits(logits, self.targets[rows])
        return {"entropy": entropy, "size": 0.01 * logits.square().mean()}

    def score(self) -> Mapping[str, float]:
        # numpy's numbers, as metrics return them.
        right = ((self.model(self.features) > 0) == self.targets.bool()).numpy()
        return {"accuracy": cast(float, np.float64(right.mean())), "first": cast(float, np.float64(right[:, 0].mean()))}

    def fit(self, **changes: Any) -> Fitted:
        arguments: dict[str, Any] = {
            "clips": CLIPS,
            "batch_size": 4,
            "schedule": SCHEDULE,
            "optimiser": Optimiser(weight_decay=1e-3),
            "seed": 3,
            "validate": self.score,
            "select": "accuracy",
        }
        return fit(self.model, self.loss, **(arguments | changes))


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def assert_same(first: Fitted, second: Fitted) -> None:
    assert first.history == second.history
    assert first.best_epoch == second.best_epoch
    assert same(first.best, second.best)
    assert same(first.last, second.last)


class InterruptedRunError(Exception):
    """What the tests interrupt with."""


def interrupt_after(epoch: int) -> Callable[[Mapping[str, float]], None]:
    def progress(record: Mapping[str, float]) -> None:
        if record["epoch"] == epoch:
            raise InterruptedRunError

    return progress


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 1))
def test_training_interrupted_after_an_epoch_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    file = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        Problem().fit(checkpoint=file, progress=interrupt_after(epoch))
    again = Problem()
    with seeded(99):  # The state of the generators outside does not matter.
        resumed = again.fit(checkpoint=file)
    assert_same(resumed, Problem().fit())
    assert len(again.seen) == 3 * (EPOCHS - epoch)


def test_training_interrupted_within_an_epoch_ends_with_the_same_bits(tmp_path: Path) -> None:
    file, broken = tmp_path / "training.pt", Problem()

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        if len(broken.seen) == 7:
            raise KeyboardInterrupt
        return Problem.loss(broken, rows)

    broken.loss = loss  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.fit(checkpoint=file)
    assert_same(Problem().fit(checkpoint=file), Problem().fit())


def test_training_killed_while_it_writes_a_checkpoint_ends_with_the_same_bits(tmp_path: Path) -> None:
    file = tmp_path / "training.pt"
    killed = subprocess.run([sys.executable, __file__, str(file), "3"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training.pt", "training.pt.part"]
    again = Problem()
    assert_same(again.fit(checkpoint=file), Problem().fit())
    assert len(again.seen) == 3 * (EPOCHS - 2)
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


def die_in_write(file: Path, number: int) -> None:
    """Train, and die once the given checkpoint's bytes are written but not yet in their place."""
    written = 0

    def fsync(descriptor: int) -> None:
        nonlocal written
        written += 1
        if written == number:
            os.truncate(file.with_name(file.name + ".part"), 100)
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync  # type: ignore[assignment]
    Problem().fit(checkpoint=file)


def test_a_finished_training_is_read_not_repeated(tmp_path: Path) -> None:
    first, second = Problem(), Problem()
    done = first.fit(checkpoint=tmp_path / "training.pt")
    assert_same(second.fit(checkpoint=tmp_path / "training.pt"), done)
    assert second.seen == []
    assert same(second.model.state_dict(), done.best)


def test_a_checkpoint_holds_nothing_but_tensors_and_plain_values(tmp_path: Path) -> None:
    Problem().fit(checkpoint=tmp_path / "training.pt")
    state = torch.load(tmp_path / "training.pt", weights_only=True)
    assert state["history"][0].keys() == {"epoch", "rate", "loss", "entropy", "size", "accuracy", "first"}
    assert state["best"].keys() == state["model"].keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 4}, "seed = 3, not 4"),
        ({"batch_size": 5}, "batch_size = 4, not 5"),
        ({"schedule": replace(SCHEDULE, epochs=6)}, "epochs = 5, not 6"),
        ({"optimiser": Optimiser(weight_decay=0.5)}, r"weight_decay = 0\.001, not 0\.5"),
        ({"select": "first"}, "select = accuracy, not first"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    Problem().fit(checkpoint=tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match=message):
        Problem().fit(checkpoint=tmp_path / "training.pt", **change)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    Problem().fit(checkpoint=tmp_path / "training.pt")
    other = Problem()
    other.model = nn.Sequential(nn.Linear(6, 2))
    with pytest.raises(CheckpointError, match="of another network"):
        other.fit(checkpoint=tmp_path / "training.pt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04half"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged.*delete it"):
        Problem().fit(checkpoint=tmp_path / "training.pt")


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 1, "settings": Path("anything")}, tmp_path / "training.pt")
    with pytest.raises(CheckpointError, match="damaged"):
        Problem().fit(checkpoint=tmp_path / "training.pt")


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


def constant_scores(*scores: float) -> Callable[[], Mapping[str, float]]:
    left = list(scores)
    return lambda: {"accuracy": left.pop(0)}


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


class ByTurns(Problem):
    """The first layer and the last one have an optimiser each; the last one's loss sees the first one's step."""

    def __init__(self) -> None:
        super().__init__()
        self.moments: list[Moment] = []
        self.first_weights: list[Tensor] = []
        self.first, self.last = (cast(nn.Linear, self.model[place]) for place in (0, 3))

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"first": list(self.first.parameters()), "last": list(self.last.parameters())}

    def terms(self, rows: Tensor, moment: Moment) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        self.moments.append(moment)
        self.first_weights.append(self.first.weight.detach().clone())
        yield "first", {f"{name}_first": value for name, value in Problem.loss(self, rows).items()}
        self.first_weights.append(self.first.weight.detach().clone())
        yield "last", {f"{name}_last": value for name, value in Problem.loss(self, rows).items()}

    def fit(self, **changes: Any) -> Fitted:
        grouped = Grouped(self.terms, self.groups)
        arguments: dict[str, Any] = {"clips": CLIPS, "batch_size": 4, "schedule": SCHEDULE, "optimiser": Optimiser()}
        return fit(
            self.model, grouped, **(arguments | {"seed": 3, "validate": self.score, "select": "accuracy"} | changes)
        )


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


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_training_by_turns_that_is_interrupted_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    file = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        ByTurns().fit(checkpoint=file, progress=interrupt_after(epoch))
    again = ByTurns()
    assert_same(again.fit(checkpoint=file), ByTurns().fit())
    assert len(again.moments) == 3 * (EPOCHS - epoch)


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


if __name__ == "__main__":
    die_in_write(Path(sys.argv[1]), int(sys.argv[2]))
