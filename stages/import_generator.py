"""Stage `import-generator`: UWAV's released `checkpoint_best.pt` becomes a generator, as if pre-trained here.

    state dict of the released module -> weights/<ours>, sizes and logit scales as attributes

The file is read as tensors by name and nothing else: no code in it is run, and nothing of it is believed that its
size does not bear out. Sizes are read off the shapes; the number of attention heads is not in the file. There are no
text features in it either: labels are made with those of the dataset's own classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from torch import Tensor

    from avvp_pipe.store import Builder

FILE_LIMIT_BYTES = 4 * 2**30
"""Of a checkpoint; the released one has 372 MB."""


@dataclass(frozen=True, slots=True)
class Params:
    """What the file does not say, and where it is."""

    heads: Annotated[int, Field(ge=1)] = option(16, "Attention heads it was trained with; the file does not say.")
    source: str = outside_key("", "The checkpoint: a state dict saved by torch.save, or as safetensors.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """The digest of the checkpoint."""
    from avvp_pipe.stages.digests import DigestMemory
    from avvp_pipe.store import cache_folder

    path = _file(params)
    memory = DigestMemory(cache_folder() / "digests.json")
    digest = memory.digest(path)
    memory.save()
    return {"checkpoint": digest}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read, check and rename everything before anything is written."""
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.generators.uwav_released import imported_generator

    path = _file(params)
    try:
        state = _read(path)
        network, weights = imported_generator(state, heads=params.heads)
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error
    parameters = sum(tensor.numel() for name, tensor in weights.items() if not name.endswith(".scale"))
    others = sorted({str(one.dtype).removeprefix("torch.") for one in state.values() if one.is_floating_point()})
    if others != ["float32"]:
        progress.note(f"the checkpoint holds {' and '.join(others)}; stored and run as float32")
    progress.note(
        f"{parameters:,} parameters: {network.layers} layers of width {network.width}, {network.heads} heads as told, "
        f"features of {network.audio_width} (audio) and {network.visual_width} (visual)"
    )
    out.describe(method="uwav", origin="imported", released="UWAV 15c9a8d", file=path.name, parameters=parameters)
    put_network(out, network, weights, history=())


def _file(params: Params) -> Path:
    if not params.source:
        raise ParameterError("no checkpoint to import; give UWAV's checkpoint_best.pt as --source FILE")
    path = Path(params.source)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a file"
        raise StoreError(f"{path} is {what}; give the checkpoint file itself, such as checkpoint_best.pt")
    if (size := path.stat().st_size) > FILE_LIMIT_BYTES:
        raise StoreError(f"{path} has {size} bytes; a checkpoint of more than {FILE_LIMIT_BYTES} is not read")
    return path


def _read(path: Path) -> "dict[str, Tensor]":
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


STAGE = Stage(
    name="import-generator",
    kind="generator",
    version=1,
    summary="Take over a temporal generator that UWAV's released code trained: checkpoint_best.pt.",
    reads={},
    params=Params,
    run=run,
    sources=sources,
    example="avvp-pipe import-generator --source checkpoint_best.pt --name uwav-released",
)
