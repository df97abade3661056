"""Checkpoint files of released code: which one, its digest, its tensors by name. Nothing becomes an object."""

from pathlib import Path
from typing import TYPE_CHECKING

from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from torch import Tensor

FILE_LIMIT_BYTES = 4 * 2**30
"""Of a checkpoint; the largest released one has 372 MB."""


def checkpoint_file(source: str, whose: str) -> Path:
    """The file that a parameter names. Raises ParameterError for none, StoreError for what is no file or too large."""
    if not source:
        raise ParameterError(f"no checkpoint to import; give {whose} checkpoint_best.pt as --source FILE")
    path = Path(source)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise StoreError(f"{path} is {what}; give the checkpoint file itself, such as checkpoint_best.pt")
    if (size := path.stat().st_size) > FILE_LIMIT_BYTES:
        raise StoreError(f"{path} has {size} bytes; a checkpoint of more than {FILE_LIMIT_BYTES} is not read")
    return path


def checkpoint_digest(path: Path) -> str:
    """sha256 of the file, remembered for as long as it does not change."""
    from avvp_pipe.stages.digests import DigestMemory
    from avvp_pipe.store import cache_folder

    memory = DigestMemory(cache_folder() / "digests.json")
    digest = memory.digest(path)
    memory.save()
    return digest


def checkpoint_tensors(path: Path) -> "dict[str, Tensor]":
    """Tensors by name. Raises ValueError, also where they claim more numbers than the file has bytes for."""
    from avvp_pipe.stages.teachers.checkpoint import read_state

    state = read_state(path)
    claimed, there = sum(one.numel() * one.element_size() for one in state.values()), path.stat().st_size
    if claimed > there:
        raise ValueError(
            f"its tensors claim {claimed} bytes, but the file has {there}; each weight has numbers of its own in the "
            "released files, so this one was tampered with or saved from shared weights"
        )
    return state
