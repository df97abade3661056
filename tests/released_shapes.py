"""Names and shapes of the released modules' weights, written down from their published state dicts."""

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]
LOG_SCALES = {"a_logit_scale": 3.2912, "v_logit_scale": 4.6052}


def linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def generator_shapes(*, width: int, ffn: int, layers: int, audio: int, visual: int) -> Shapes:
    """UWAV's generator."""
    shapes: Shapes = {}
    for letter, features in (("a", audio), ("v", visual)):
        shapes[f"{letter}_logit_scale"] = ()
        shapes |= linear(f"proj_{letter}.layers.0", 2 * width, features)
        shapes |= linear(f"proj_{letter}.layers.1", width, 2 * width)
        for layer in range(layers):
            inside = f"{letter}_transformer.encoder.layers.{layer}."
            shapes |= _layer(inside, width, ffn, attentions=("self_attn",))
        shapes |= linear(f"final_proj_{letter}.layers.0", features, width)
        shapes |= linear(f"final_proj_{letter}.layers.1", features, features)
    return shapes


def valor_shapes(
    *, width: int, ffn: int, layers: int, audio: int, visual: int, motion: int = 512, classes: int = 25
) -> Shapes:
    """VALOR's parsers."""
    heads = [linear(name, classes, width) for name in ("fc_prob", "fc_frame_att", "fc_av_att")]
    inputs = linear("fc_a", width, audio) | linear("fc_v", width, visual) | linear("fc_st", width, motion)
    return heads[0] | heads[1] | heads[2] | inputs | linear("fc_fusion", width, 2 * width) | _encoder(
        width=width, ffn=ffn, layers=layers
    )  # fmt: skip


def uwav_shapes(*, width: int, ffn: int, layers: int, audio: int, both: int, classes: int = 25) -> Shapes:
    """UWAV's parser."""
    heads = linear("fc_prob", classes, width) | linear("fc_frame_att.layers.0", classes, width)
    heads |= linear("fc_av_att.layers.0", classes, width)
    inputs = linear("fc_a.layers.0", 2 * width, audio) | linear("fc_a.layers.1", width, 2 * width)
    inputs |= linear("fc_fusion.layers.0", width, both)
    return heads | inputs | _encoder(width=width, ffn=ffn, layers=layers)


def random_state(shapes: Shapes) -> State:
    """Drawn weights; the teachers' scales as they are."""
    draw = torch.Generator().manual_seed(0)
    state = {name: 0.02 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    return state | {name: torch.tensor(scale) for name, scale in LOG_SCALES.items() if name in shapes}


def _encoder(*, width: int, ffn: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        shapes |= _layer(f"hat_encoder.layers.{layer}.", width, ffn, attentions=("self_attn", "cm_attn"))
    for norm in ("final_norm_a", "final_norm_v"):
        shapes |= {f"hat_encoder.{norm}.weight": (width,), f"hat_encoder.{norm}.bias": (width,)}
    return shapes


def _layer(inside: str, width: int, ffn: int, *, attentions: tuple[str, ...]) -> Shapes:
    shapes: Shapes = {}
    for part in attentions:
        shapes[f"{inside}{part}.in_proj_weight"] = (3 * width, width)
        shapes[f"{inside}{part}.in_proj_bias"] = (3 * width,)
        shapes |= linear(f"{inside}{part}.out_proj", width, width)
    shapes |= linear(f"{inside}linear1", ffn, width) | linear(f"{inside}linear2", width, ffn)
    for norm in ("norm1", "norm2"):
        shapes |= {f"{inside}{norm}.weight": (width,), f"{inside}{norm}.bias": (width,)}
    return shapes
