"""Stage `import-generator`: UWAV's released `checkpoint_best.pt` becomes a generator, as if pre-trained here.

    state dict of the released module -> weights/<ours>, sizes and logit scales as attributes

The file is read as tensors by name and nothing else: no code in it is run, and nothing of it is believed that its
size does not bear out. Sizes are read off the shapes; the number of attention heads is not in the file. There are no
text features in it either: labels are made with those of the dataset's own classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from avvp_pipe.stages.blocks.checkpoint_files import checkpoint_digest, checkpoint_file, checkpoint_tensors
from avvp_pipe.stages.stage import Inputs, Progress, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Builder


@dataclass(frozen=True, slots=True)
class Params:
    """What the file does not say, and where it is."""

    heads: Annotated[int, Field(ge=1)] = option(16, "Attention heads it was trained with; the file does not say.")
    source: str = outside_key("", "The checkpoint: a state dict saved by torch.save, or as safetensors.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """The digest of the checkpoint."""
    return {"checkpoint": checkpoint_digest(checkpoint_file(params.source, "UWAV's"))}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read, check and rename everything before anything is written."""
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.generators.uwav_released import imported_generator

    path = checkpoint_file(params.source, "UWAV's")
    try:
        state = checkpoint_tensors(path)
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
