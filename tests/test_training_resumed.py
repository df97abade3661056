"""Training that was interrupted, killed or handed a strange checkpoint."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avvp_pipe.stages.blocks.checkpoints import CheckpointError
from avvp_pipe.stages.blocks.training import Optimiser, seeded
from tests.training_problem import (
    EPOCHS,
    SCHEDULE,
    ByTurns,
    InterruptedRunError,
    Problem,
    assert_same,
    interrupt_after,
    same,
)

PROGRAM = Path(__file__).with_name("training_problem.py")


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
    killed = subprocess.run([sys.executable, PROGRAM, str(file), "3"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["training.pt", "training.pt.part"]
    again = Problem()
    assert_same(again.fit(checkpoint=file), Problem().fit())
    assert len(again.seen) == 3 * (EPOCHS - 2)
    assert [path.name for path in tmp_path.iterdir()] == ["training.pt"]


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


@pytest.mark.parametrize("epoch", [1, 3, 5])
def test_training_by_turns_that_is_interrupted_ends_with_the_same_bits(tmp_path: Path, epoch: int) -> None:
    file = tmp_path / "training.pt"
    with pytest.raises(InterruptedRunError):
        ByTurns().fit(checkpoint=file, progress=interrupt_after(epoch))
    again = ByTurns()
    assert_same(again.fit(checkpoint=file), ByTurns().fit())
    assert len(again.moments) == 3 * (EPOCHS - epoch)
