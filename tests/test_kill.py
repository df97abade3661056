"""A run that is killed in the middle of a stage, and started again, ends with the same bytes as one that was not."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from avvp_pipe.store import Store

TARGET = ("--dataset", "dataset/target")
COMMANDS = {
    "decode": ("decode", *TARGET, "--frame-size", "64", "--sample-rate", "16000", "--workers", "1"),
    "extract": ("extract", "--media", "media/target", *TARGET),
    "pretrain": (
        "pretrain", "--dataset", "dataset/pretrain", "--features", "features/pretrain",
        "--width", "32", "--heads", "4", "--ffn", "64", "--layers", "2", "--epochs", "30", "--train-batch", "4",
    ),
    "train-parser": (
        "train-parser", *TARGET, "--features", "features/target", "--labels", "labels/uwav",
        "--width", "32", "--heads", "4", "--ffn", "64", "--layers", "2", "--epochs", "30", "--train-batch", "4",
    ),
}  # fmt: skip
KINDS = {"decode": "media", "extract": "features", "pretrain": "generator", "train-parser": "parser"}
REACHED = {"decode": "*/zarr.json", "extract": "*/zarr.json", "pretrain": ".scratch/checkpoint.pt"}
REACHED["train-parser"] = REACHED["pretrain"]


def command(stage: str, store: Path) -> list[str]:
    entry = "from avvp_pipe.cli.main import main; main()"
    return [sys.executable, "-c", entry, *COMMANDS[stage], "--name", "killed", "--store", str(store), "--quiet"]


def files_of(store: Path, stage: str) -> dict[str, bytes]:
    artifact = Store(store).get(f"{KINDS[stage]}/killed")
    paths = [path for path in artifact.path.rglob("*") if path.is_file()]
    return {path.relative_to(artifact.path).as_posix(): path.read_bytes() for path in paths}


def kill_midway(stage: str, store: Path) -> None:
    """Start the stage, and kill it with everything it started once it has begun to write."""
    process = subprocess.Popen(command(stage, store), start_new_session=True)
    folder = store / KINDS[stage] / "killed"
    while process.poll() is None and not list(folder.glob(f".*.partial/{REACHED[stage]}")):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the stage was over before it could be killed"


@pytest.mark.parametrize("stage", COMMANDS)
def test_a_killed_stage_shows_nothing_and_ends_in_the_same_bytes(
    finished_demo: Any, tmp_path: Path, stage: str
) -> None:
    stores = tmp_path / "whole", tmp_path / "killed"
    for store in stores:
        shutil.copytree(finished_demo.store, store)
    subprocess.run(command(stage, stores[0]), check=True)
    kill_midway(stage, stores[1])
    assert not [one for one in Store(stores[1]).artifacts() if one.name == "killed"]
    subprocess.run(command(stage, stores[1]), check=True)
    assert files_of(stores[0], stage) == files_of(stores[1], stage)
    left = [path.name for path in (stores[1] / KINDS[stage] / "killed").iterdir() if path.name.endswith(".partial")]
    assert left == []
