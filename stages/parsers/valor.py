"""VALOR's parsers: HAN, trained on segment-level labels; `valor`, the deeper `valor+`, and `valor++` on CLIP and CLAP.

    VALOR: "Modality-Independent Teachers Meet Weakly-Supervised Audio-Visual Event Parser", NeurIPS 2023.
    Released code at 2677da9.

              valor                           valor+    valor++
    audio     VGGish (T, 128)                 same      CLAP's feature map (64, 768) of the whole clip
    visual    ResNet-152 (8T, 2048)           same      CLIP (T, 768)
    motion    R(2+1)D (T, 512)                same      same
    layers    1 of width 512                  4 of 256  4 of 256
    weights   5,096,523                       5,052,235 4,888,395

Departures.  As released and unlike the paper, vision looks at the already updated audio, and segment losses are means.
The release decides by the names of folders how wide its inputs are; here the features say it.
On AVE (appendix F, no code) a second's classes come from a feed-forward network of two layers, `head="ffn"`; how wide
its inner layer is is not said: here as that of the attention layers. Its objective there is
`--background column --video none --targets hard`, its recipe batches of 16, 120 epochs, 3e-4 to 3e-6.
ResNet's frames are averaged into seconds, and CLAP's maps stretched and averaged, before their Linear layers and not
after them: the same but for rounding (`inputs.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from avvp_pipe.stages.blocks.weights import renamed
from avvp_pipe.stages.parsers.han import Han, Network
from avvp_pipe.stages.parsers.records import GateSettings, ParserMethod, ParserName

__all__ = ["VALOR", "VALOR_PLUS", "VALOR_PLUSPLUS", "from_released"]

Value = TypeVar("Value")


def from_released(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of a `checkpoint_best.pt` (a state dict) that VALOR's code wrote to those of `Han`.

    Raises ValueError for names that the release does not have; `load_arrays` and `load_state_dict` then
    check that none is missing and that shapes fit.
    """
    return renamed(
        state,
        {
            "fc_prob.": "classifier.",
            "fc_frame_att.": "pooling.over_time.",
            "fc_av_att.": "pooling.over_modality.",
            "fc_a.": "audio_in.",
            "fc_v.": "visual_in.picture.",
            "fc_st.": "visual_in.motion.",
            "fc_fusion.": "visual_in.fusion.",
            "hat_encoder.": "encoder.",
        },
    )


def _method(name: ParserName, network: Network, **recipe: Any) -> ParserMethod:
    return ParserMethod(
        name=name,
        paper="VALOR (NeurIPS 2023)",
        network=network,
        build=Han,
        reads=tuple(network.widths()),
        gate=GateSettings(strict=False),
        recipe={**_RECIPE, **recipe},
    )


_RECIPE: Mapping[str, Any] = {
    "targets": "hard",
    "reweight": "none",
    "mixup": "none",
    "epochs": 60,
    "beta1": 0.5,
    "weight_decay": 1e-3,
}
_WIDE = Network(heads=8, ffn=1024, layers=1, audio_projection="linear", visual_fusion="separate")
_DEEP = replace(_WIDE, width=256, layers=4)
_TEACHERS = replace(_DEEP, audio_stream="audio_map", audio_width=768, visual_width=768)

VALOR = _method("valor", _WIDE, learning_rate=1e-4, learning_rate_min=1e-6, seed=1000)
VALOR_PLUS = _method("valor+", _DEEP, learning_rate=3e-4, learning_rate_min=3e-6, seed=64)
VALOR_PLUSPLUS = _method("valor++", _TEACHERS, learning_rate=3e-4, learning_rate_min=3e-6, seed=87)
