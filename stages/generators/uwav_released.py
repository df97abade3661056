"""UWAV's released `checkpoint_best.pt`: from the state dict of the released module to ours, sizes read off its shapes.

Released code: github.com/Franklin905/UWAV at 15c9a8d. Names and shapes of the whole file: 5 layers of width 1024, 16
heads, 92,985,856 parameters. Attention heads leave no trace in the shapes, so their number must be told.

| size | read off |
|---|---|
| width, audio_width, visual_width | `proj_{a,v}.layers`: (2 width, features), (width, 2 width) |
| ffn, layers | `{a,v}_transformer.encoder.layers.<i>.linear1.weight`: (ffn, width) |
| audio_scale, visual_scale | `{a,v}_logit_scale`, natural logarithms |
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from avvp_pipe.stages.blocks.weights import checked
from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator, from_released

__all__ = ["imported_generator", "released_network"]

LAYER = re.compile(r"a_transformer\.encoder\.layers\.(\d{1,4})\.")
LARGEST_SCALE = 10.0
"""A logarithm of a logit scale beyond this is none: CLIP clamps its own at ln 100 = 4.6."""


def imported_generator(state: Mapping[str, Tensor], *, heads: int) -> tuple[Network, dict[str, Tensor]]:
    """Sizes and weights, under the names of `TemporalGenerator` and in float32, of a released state dict.

    Raises ValueError naming what is missing, unexpected, of a shape that does not fit the others, or not finite.
    """
    _require_generator(state)
    network = released_network(state, heads=heads)
    with torch.device("meta"):  # only the shapes are wanted: nothing is drawn, nothing allocated
        wanted = TemporalGenerator(network).state_dict()
    ours = from_released(state)
    floats = {name: one.to(torch.float32) if one.is_floating_point() else one for name, one in ours.items()}
    return network, {name: floats[name].contiguous() for name in checked(wanted, floats)}


def released_network(state: Mapping[str, Tensor], *, heads: int) -> Network:
    """The sizes of a released state dict; switches are those of the release. Raises ValueError."""
    width, _ = _shape(state, "proj_a.layers.1.weight")
    ffn, _ = _shape(state, "a_transformer.encoder.layers.0.linear1.weight")
    if heads < 1 or width % heads:
        raise ValueError(
            f"{heads} heads do not divide the width {width}; the shapes do not tell how many there were: "
            "give the number it was trained with as --heads (released: 16)"
        )
    return Network(
        width=width,
        heads=heads,
        ffn=ffn,
        layers=len({found[1] for name in state if (found := LAYER.match(name))}),
        audio_width=_shape(state, "proj_a.layers.0.weight")[1],
        visual_width=_shape(state, "proj_v.layers.0.weight")[1],
        audio_scale=_scale(state, "a_logit_scale"),
        visual_scale=_scale(state, "v_logit_scale"),
    )


def _require_generator(state: Mapping[str, Tensor]) -> None:
    """The commonest mix-up gets a message of its own: UWAV's parser is called `checkpoint_best.pt` too."""
    if any(name.startswith(("hat_encoder.", "fc_prob.")) for name in state):
        raise ValueError(
            "holds a parser (HAN: it has hat_encoder or fc_prob), but a label generator is wanted; "
            "give the checkpoint of UWAV's first stage, trained on UnAV-100"
        )


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, int]:
    if name not in state:
        shown = ", ".join(sorted(state)[:3])
        raise ValueError(f"is no generator of UWAV's release: it lacks {name}; it has {shown} and so on")
    shape = tuple(state[name].shape)
    if len(shape) != 2 or min(shape) < 1:
        raise ValueError(f"{name} has shape {shape}; wanted a matrix, (outputs, inputs)")
    return shape[0], shape[1]


def _scale(state: Mapping[str, Tensor], name: str) -> float:
    if name not in state or state[name].numel() != 1 or not state[name].is_floating_point():
        raise ValueError(f"lacks the number {name}; the released module keeps its logit scales beside the weights")
    value = float(state[name])
    if not math.isfinite(value) or abs(value) > LARGEST_SCALE:
        raise ValueError(f"{name} is {value}; wanted the logarithm of a logit scale, such as 3.2912 or 4.6052")
    return value
