"""Stage `import-parser`: a released `checkpoint_best.pt` of VALOR or UWAV becomes a parser, as if trained here.

    state dict of the released module -> weights/<ours>, sizes as attributes

The file is read as tensors by name and nothing else: no code in it is run, and nothing of it is believed that its
size does not bear out. Sizes are read off the shapes (`parsers/released.py`); attention heads and norms are as
released, or as told. Classes have no names in the file: they are taken to be those of the dataset, in its order.
Nothing is predicted: `parse` runs the parser over features or videos.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from avvp_pipe.stages.blocks.checkpoint_files import checkpoint_digest, checkpoint_file, checkpoint_tensors
from avvp_pipe.stages.stage import POSITIVE_COUNT, Inputs, Progress, Reads, Stage, option, outside_key
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.parsers.released import Imported
    from avvp_pipe.store import Builder

WHOSE = "VALOR's or UWAV's"
RELEASES = {"uwav": "UWAV 15c9a8d"}
"""Parser -> the code that wrote such files; the others are VALOR's."""


@dataclass(frozen=True, slots=True)
class Params:
    """What the file does not say, and where it is."""

    parser: Literal["auto", "valor", "valor+", "valor++", "uwav"] = option(
        "auto", "Whose parser it is; auto: as its names and shapes say."
    )
    heads: Annotated[str, POSITIVE_COUNT] = option(
        "auto", "Attention heads it was trained with; auto: as released, 8 of VALOR's and 16 of UWAV's."
    )
    norm: Literal["post", "pre"] = option("post", "Where its layers normalise; released: post.")
    motion_width: Annotated[int, Field(ge=0)] = option(
        512, "Width of its motion features; UWAV's files hold only the sum with the pictures'."
    )
    source: str = outside_key("", "The checkpoint: a state dict saved by torch.save, or as safetensors.")


def sources(params: Params, inputs: Inputs) -> Mapping[str, str]:
    """The digest of the checkpoint."""
    return {"checkpoint": checkpoint_digest(checkpoint_file(params.source, WHOSE))}


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Read, check and rename everything before anything is written."""
    from avvp_pipe.stages.blocks.stored import put_network
    from avvp_pipe.stages.parsers.released import imported_parser

    path = checkpoint_file(params.source, WHOSE)
    classes = list(inputs["dataset"].attrs["classes"])
    try:
        state = checkpoint_tensors(path)
        found = imported_parser(
            state,
            name=None if params.parser == "auto" else params.parser,
            heads=None if params.heads == "auto" else int(params.heads),
            norm=params.norm,
            motion_width=params.motion_width,
        )
    except ValueError as error:
        raise StoreError(f"{path}: {error}") from error
    if found.network.classes != len(classes):
        raise StoreError(
            f"{path} is a parser of {found.network.classes} classes, but {inputs['dataset'].reference} has "
            f"{len(classes)}; give the dataset whose classes it was trained on, such as LLP's 25"
        )
    _tell(found, state, progress)
    released = RELEASES.get(found.name, "VALOR 2677da9")
    out.describe(classes=classes, method=f"{found.name}, imported", origin="imported", released=released)
    out.describe(file=path.name, parameters=_parameters(found), **_as_trained(found))
    put_network(out, found.network, found.weights, history=())


def _as_trained(found: "Imported") -> dict[str, Any]:
    """What `train-parser` tells of a parser, and `parse` reads."""
    from avvp_pipe.stages.parsers import parser_method

    widths = found.network.widths()
    gate = dataclasses.asdict(parser_method(found.name).gate)
    return {
        "parser": found.name,
        "gate": gate,
        "background": False,
        "streams": list(widths),
        "widths": widths,
        "switches": None,
    }


def _parameters(found: "Imported") -> int:
    return sum(tensor.numel() for tensor in found.weights.values())


def _tell(found: "Imported", state: Mapping[str, Any], progress: Progress) -> None:
    others = sorted({str(one.dtype).removeprefix("torch.") for one in state.values() if one.is_floating_point()})
    if others != ["float32"]:
        progress.note(f"the checkpoint holds {' and '.join(others)}; stored and run as float32")
    network = found.network
    progress.note(
        f"{found.name}: {_parameters(found):,} parameters, {network.layers} layers of width {network.width}, "
        f"{network.heads} heads; reads {', '.join(f'{name} ({width})' for name, width in network.widths().items())}"
    )
    progress.note("its classes are taken to be in the dataset's order; the file does not say")


STAGE = Stage(
    name="import-parser",
    kind="parser",
    version=1,
    summary="Take over a parser that VALOR's or UWAV's released code trained: checkpoint_best.pt.",
    reads={"dataset": Reads("dataset", "Whose classes it was trained on, in their order.")},
    params=Params,
    run=run,
    sources=sources,
    example="avvp-pipe import-parser --dataset dataset/llp --source checkpoint_best.pt --name valor-released",
)
