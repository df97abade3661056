"""Training in fp16 with a scaled loss: the loop's part of it, on a processor, where nobody else may ask for it."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from avvp_pipe.stages.blocks.checkpoints import CheckpointError
from avvp_pipe.stages.blocks.device import autocast, fast_precision
from avvp_pipe.stages.blocks.precision import settled_precision
from avvp_pipe.stages.blocks.training import DivergedError, Fitted, Optimiser
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Store
from tests.parser_world import put_world, train
from tests.training_problem import EPOCHS, InterruptedRunError, Problem, assert_same, interrupt_after, same

CPU = torch.device("cpu")


class Half(Problem):
    """Computed in sixteen bits; the scale grows every fourth step."""

    def __init__(self, scale: float = 2.0**10) -> None:
        super().__init__()
        self.scaler = GradScaler("cpu", init_scale=scale, growth_interval=4)

    def loss(self, rows: Tensor) -> Mapping[str, Tensor]:
        with autocast(CPU, "fp16"):
            logits = self.model(self.features[rows])
        self.seen.append(rows.tolist())
        assert logits.dtype == torch.float16
        return {"entropy": torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), self.targets[rows])}

    def fit(self, **changes: Any) -> Fitted:
        return super().fit(**({"scaler": self.scaler} | changes))


@pytest.mark.parametrize("fused", [False, True])
def test_a_scaled_loss_steps_as_one_that_is_not(fused: bool) -> None:
    """A power of two changes no digit of a gradient that neither overflows nor vanishes."""
    optimiser = Optimiser(fused=fused)
    scaled, plain = Half(), Half()
    assert_same(scaled.fit(optimiser=optimiser), plain.fit(optimiser=optimiser, scaler=None))
    assert scaled.scaler.get_scale() == 2.0**10 * 2 ** (3 * EPOCHS // 4)


@pytest.mark.parametrize("epoch", [1, 3, 4])
def test_interrupted_training_goes_on_with_the_scale_that_it_had(tmp_path: Path, epoch: int) -> None:
    file, whole = tmp_path / "training.pt", Half()
    with pytest.raises(InterruptedRunError):
        Half().fit(checkpoint=file, progress=interrupt_after(epoch))
    kept = torch.load(file, weights_only=True)["scaler"]
    assert (kept["scale"], kept["_growth_tracker"]) == (2.0**10 * 2 ** (3 * epoch // 4), 3 * epoch % 4)
    again = Half(scale=2.0)
    assert_same(again.fit(checkpoint=file), whole.fit())
    assert again.scaler.state_dict() == whole.scaler.state_dict()


@pytest.mark.parametrize("fused", [False, True])
def test_a_gradient_that_overflows_leaves_the_step_out_and_halves_the_scale(fused: bool) -> None:
    problem, scales = Half(scale=2.0**20), []
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    steps: list[bool] = []

    def loss(rows: Tensor) -> Mapping[str, Tensor]:
        scales.append(problem.scaler.get_scale())
        steps.append(same(problem.model.state_dict(), before))
        return {name: 100 * value for name, value in Half.loss(problem, rows).items()}

    problem.loss = loss  # type: ignore[method-assign]
    fitted = problem.fit(optimiser=Optimiser(fused=fused))
    assert scales[:3] == [2.0**20, 2.0**19, 2.0**18]
    assert steps[:2] == [True, True], "a step was made with a gradient that is not finite"
    assert not steps[-1], "no step was ever made"
    assert all(math.isfinite(one["loss"]) for one in fitted.history)
    assert all(tensor.isfinite().all() for tensor in fitted.last.values())


def test_a_loss_that_is_not_finite_stops_at_once_and_a_gradient_when_no_scale_helps() -> None:
    for factor, seen in ((math.nan, 1), (1.0, 4)):
        problem = Half(scale=8.0)

        def loss(rows: Tensor, problem: Half = problem, factor: float = factor) -> Mapping[str, Tensor]:
            problem.seen.append(rows.tolist())
            weight = next(problem.model.parameters())
            return {"root": factor * (weight - weight.detach()).square().sum().sqrt()}  # 0, and its slope is 0 / 0

        problem.loss = loss  # type: ignore[method-assign]
        with pytest.raises(DivergedError, match=r"epoch \d, batch \d of 3: loss = .* norm of the gradient = nan"):
            problem.fit()
        assert len(problem.seen) == seen
        assert all(parameter.isfinite().all() for parameter in problem.model.parameters())


def test_a_checkpoint_of_another_precision_is_refused(tmp_path: Path) -> None:
    for first, second in ((Half().scaler, None), (None, Half().scaler)):
        file = tmp_path / f"{first is None}.pt"
        with pytest.raises(InterruptedRunError):
            Half().fit(checkpoint=file, progress=interrupt_after(1), scaler=first)
        with pytest.raises(CheckpointError, match="was trained in another precision; delete it"):
            Half().fit(checkpoint=file, scaler=second)


def test_fp16_is_refused_where_there_is_no_cuda_before_anything_is_made(tmp_path: Path) -> None:
    store = Store(tmp_path)
    put_world(store)
    there = len(list(store.artifacts()))
    with pytest.raises(ValueError, match="--precision fp16 is for CUDA, and --device cpu is cpu; use --precision auto"):
        train(store, precision="fp16")
    with pytest.raises(ParameterError, match="coleaf is trained in fp32 only"):
        train(store, parser="coleaf", widths="features", precision="fp16")
    assert len(list(store.artifacts())) == there


def test_precision_is_settled_in_one_place() -> None:
    assert settled_precision("auto", "cpu") == fast_precision("cpu")
    assert [settled_precision(one, "cpu") for one in ("fp32", "bf16")] == ["fp32", "bf16"]
