"""The file from which an interrupted training goes on: tensors and plain values, never half-written."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["CheckpointError", "read_checkpoint", "write_checkpoint"]

_FORMAT = 2
"""Raised when what a checkpoint holds changes."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or belongs to a training run with other settings."""


def write_checkpoint(file: Path, state: Mapping[str, Any]) -> None:
    """Write the state beside its place, then move it there in one step, replacing an older one.

    state holds tensors, numbers, strings and containers of them, "settings" among them.
    """
    part = file.with_name(file.name + ".part")
    written = io.BytesIO()  # torch's own writer hides what the disk says: a full one would be a RuntimeError
    torch.save({"format": _FORMAT, **state}, written)
    with part.open("wb") as stream:
        stream.write(written.getbuffer())
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def read_checkpoint(file: Path, *, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote, with its tensors on the device; nothing is unpickled but these.

    Raises CheckpointError where the file is damaged or its settings differ from the given ones.
    """
    try:
        state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        version, theirs = state["format"], state["settings"]
    except (EOFError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        # torch's own words advise unpickling without safety; they are not passed on.
        kind = type(error).__name__
        raise CheckpointError(f"{file} is damaged ({kind}); delete it to train from the start") from error
    if version != _FORMAT:
        raise CheckpointError(f"{file} has format {version}, but this program reads {_FORMAT}; delete it")
    differing = [name for name in settings if theirs.get(name) != settings[name]]
    if differing:
        came = ", ".join(f"{name} = {theirs.get(name)}, not {settings[name]}" for name in differing)
        raise CheckpointError(
            f"{file} was trained with {came}; go on with the same settings, or delete it to train from the start"
        )
    return state
