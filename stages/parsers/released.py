"""Released parsers: from the state dict of VALOR's or UWAV's code to ours, sizes read off its shapes.

Released code: VALOR at 2677da9 (`valor`, `valor+`, `valor++`), github.com/Franklin905/UWAV at 15c9a8d (`uwav`).

| size | read off |
|---|---|
| classes | `fc_prob.weight`: (classes, width) |
| width, audio_width | VALOR `fc_a.weight`, UWAV `fc_a.layers.0` and `.1`: (outputs, inputs) |
| visual_width, motion_width | VALOR `fc_v.weight`, `fc_st.weight`; UWAV `fc_fusion.layers.0.weight`, their sum only |
| ffn, layers | `hat_encoder.layers.<i>.linear1.weight`: (ffn, width) |

Neither the number of attention heads nor where layers normalise leaves a trace: both must be told, or are as released.
Of VALOR's three, `valor++` is the one whose audio is as wide as CLAP's feature maps, `valor` has one layer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from avvp_pipe.stages.blocks.attention import Norm
from avvp_pipe.stages.blocks.weights import checked
from avvp_pipe.stages.parsers import parser_method, uwav, valor
from avvp_pipe.stages.parsers.han import Han, Network

__all__ = ["Imported", "ReleasedName", "imported_parser"]

ReleasedName = Literal["valor", "valor+", "valor++", "uwav"]
LAYER = re.compile(r"hat_encoder\.layers\.(\d{1,4})\.")
MAP_WIDTH = 768
"""Of CLAP's feature maps, which `valor++` reads."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A released parser in our terms."""

    name: ReleasedName
    network: Network
    weights: dict[str, Tensor]
    """Under the names of `Han`, in float32."""


def imported_parser(
    state: Mapping[str, Tensor],
    *,
    name: ReleasedName | None = None,
    heads: int | None = None,
    norm: Norm = "post",
    motion_width: int = 512,
) -> Imported:
    """Method, sizes and weights of a released state dict.

    name: which parser it is, None for what its shapes say; heads: of attention, None for as many as released; norm:
    where layers normalise; motion_width: of R(2+1)D, for UWAV's files, which hold only the sum with the pictures'.
    Raises ValueError naming what is missing, unexpected, of a shape that does not fit the others, or not finite.
    """
    family = _family(state)
    if name is not None and (name == "uwav") != (family == "uwav"):
        raise ValueError(f"holds a parser of {family.upper()}'s release, but {name} is wanted; leave --parser out")
    sizes = _uwav_sizes(state, motion_width) if family == "uwav" else _valor_sizes(state)
    if name is None:
        name = "uwav" if family == "uwav" else _which_valor(sizes)
    published = parser_method(name).network
    network = replace(published, heads=_heads(heads, sizes["width"], published.heads), norm=norm, **sizes)
    with torch.device("meta"):  # only the shapes are wanted: nothing is drawn, nothing allocated
        wanted = Han(network).state_dict()
    ours = (uwav if family == "uwav" else valor).from_released(state)
    floats = {one: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for one, tensor in ours.items()}
    return Imported(name, network, {one: floats[one].contiguous() for one in checked(wanted, floats)})


def _heads(told: int | None, width: int, released: int) -> int:
    heads = released if told is None else told
    if heads < 1 or width % heads:
        raise ValueError(
            f"{heads} heads do not divide the width {width}; the shapes do not tell how many there were: give the "
            f"number it was trained with as --heads (released: {released})"
        )
    return heads


def _family(state: Mapping[str, Tensor]) -> Literal["valor", "uwav"]:
    """Whose code wrote it. The commonest mix-up gets a message of its own: generators have files of the same name."""
    if any(one.startswith(("a_transformer.", "proj_a.")) for one in state):
        raise ValueError(
            "holds a label generator (it has a_transformer or proj_a), but a parser is wanted; import it with "
            "`avvp-pipe import-generator`, or give the checkpoint of the parser"
        )
    if "fc_frame_att.layers.0.weight" in state:
        return "uwav"
    if "fc_frame_att.weight" in state and "fc_st.weight" in state:
        return "valor"
    shown = ", ".join(sorted(state)[:3])
    raise ValueError(
        f"is no parser of VALOR's or UWAV's release: it has neither fc_frame_att.weight and fc_st.weight nor "
        f"fc_frame_att.layers.0.weight; it has {shown} and so on"
    )


def _which_valor(sizes: Mapping[str, int]) -> ReleasedName:
    if sizes["audio_width"] == MAP_WIDTH:
        return "valor++"
    return "valor" if sizes["layers"] == 1 else "valor+"


def _valor_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    width, audio = _shape(state, "fc_a.weight")
    _, visual = _shape(state, "fc_v.weight")
    _, motion = _shape(state, "fc_st.weight")
    inputs = {"width": width, "audio_width": audio, "visual_width": visual, "motion_width": motion}
    return inputs | _common_sizes(state)


def _uwav_sizes(state: Mapping[str, Tensor], motion: int) -> dict[str, int]:
    width, both = _shape(state, "fc_fusion.layers.0.weight")
    _, audio = _shape(state, "fc_a.layers.0.weight")
    if not 0 <= motion < both:
        raise ValueError(
            f"reads pictures and motion that are {both} wide together, which leaves nothing for pictures beside motion "
            f"of width {motion}; give the width of motion as --motion-width"
        )
    inputs = {"width": width, "audio_width": audio, "visual_width": both - motion, "motion_width": motion}
    return inputs | _common_sizes(state)


def _common_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    classes, _ = _shape(state, "fc_prob.weight")
    ffn, _ = _shape(state, "hat_encoder.layers.0.linear1.weight")
    return {"classes": classes, "ffn": ffn, "layers": len({one[1] for one in map(LAYER.match, state) if one})}


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    if name not in state:
        raise ValueError(f"lacks {name}, from which the sizes of the parser are read; fetch the whole file again")
    shape = tuple(state[name].shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name} has shape {shape}; wanted a matrix, (outputs, inputs)")
    return shape[0], shape[1]
