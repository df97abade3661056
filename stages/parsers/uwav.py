"""UWAV's parser: a larger HAN, trained on soft labels with class-balanced weights and mixup.

    UWAV: "Uncertainty-weighted Weakly-supervised Audio-Visual Video Parsing", CVPR 2025, arXiv:2505.09615,
    section 3.3.  Released code: github.com/Franklin905/UWAV at 15c9a8d.

              uwav                                                uwav-clip-clap
    audio     VGGish (T, 128)                                     CLAP (T, 512)
    visual    ResNet-152 (8T, 2048), R(2+1)D (T, 512) beside it   CLIP (T, 768)
    layers    5 of width 512                                      the same

Departures.  As released and unlike the paper, vision looks at the already updated audio, and audio has two layers
before the first HAN layer.
Ours: `uwav-clip-clap` has one Linear for CLIP features, because the configuration behind UWAV's CLIP + CLAP rows is
unknown and the released code cannot run it: it feeds CLIP's 768 numbers to a network of width 512.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from avvp_pipe.stages.blocks.weights import renamed
from avvp_pipe.stages.parsers.han import Han, Network
from avvp_pipe.stages.parsers.records import GateSettings, ParserMethod

__all__ = ["UWAV", "UWAV_CLIP_CLAP", "from_released"]

Value = TypeVar("Value")


def from_released(state: Mapping[str, Value]) -> dict[str, Value]:
    """Rename the entries of UWAV's released `checkpoint_best.pt` (a state dict) to those of `Han`.

    Raises ValueError for names that the release does not have; `load_arrays` and `load_state_dict` then
    check that none is missing and that shapes fit.
    """
    return renamed(
        state,
        {
            "fc_prob.": "classifier.",
            "fc_frame_att.layers.0.": "pooling.over_time.",
            "fc_av_att.layers.0.": "pooling.over_modality.",
            "fc_a.layers.0.": "audio_in.0.",
            "fc_a.layers.1.": "audio_in.2.",
            "fc_fusion.layers.0.": "visual_in.fusion.",
            "hat_encoder.": "encoder.",
        },
    )


UWAV = ParserMethod(
    name="uwav",
    paper="UWAV (CVPR 2025, arXiv:2505.09615)",
    network=Network(),
    build=Han,
    gate=GateSettings(strict=True),
)
"""Its recipe is what the parameters of `train-parser` are by default."""

UWAV_CLIP_CLAP = ParserMethod(
    name="uwav-clip-clap",
    paper="UWAV (CVPR 2025, arXiv:2505.09615), CLIP and CLAP features",
    network=Network(audio_width=512, visual_width=768, motion_width=0),
    build=Han,
    reads=("audio", "visual"),
    gate=GateSettings(strict=True),
)
