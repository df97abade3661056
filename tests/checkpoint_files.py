"""Checkpoints as strangers might send them."""

import os
from pathlib import Path
from typing import Any

import torch


class Harmful:
    """Its pickle, when loaded without care, makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.mark),)


def saved(folder: Path, state: Any, name: str = "checkpoint_best.pt", **options: Any) -> Path:
    """Write a checkpoint as torch does."""
    torch.save(state, folder / name, **options)
    return folder / name
