"""UWAV's labels: the pre-trained temporal generator (`uwav.py`) listens and looks at the whole clip at once.

UWAV (CVPR 2025, arXiv:2505.09615) section 3.2 and released code. The frozen generator is handed the text
features of this dataset's classes, which it need not have met in pre-training.
"""

from typing import TYPE_CHECKING

import numpy as np

from avvp_pipe.stages.generators.records import LabelGenerator, Logits, SegmentFeatures

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

CLIPS_AT_ONCE = 64


def logits(features: SegmentFeatures, generator: "Artifact | None") -> Logits:
    """Logits of the generator, clip by clip in fixed groups; NaN where features are. Raises ValueError without one."""
    import torch

    from avvp_pipe.stages.blocks.device import tensor_on
    from avvp_pipe.stages.blocks.stored import load_network
    from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator

    if generator is None:
        raise ValueError("uwav runs a generator; make one with `avvp-pipe pretrain` and give it as --generator NAME")
    model = load_network(generator, Network, TemporalGenerator)
    text = (tensor_on("cpu", features.text_audio), tensor_on("cpu", features.text_visual))
    missing = np.isnan(features.audio[:, :, 0])[:, :, None]
    audio, visual = (np.nan_to_num(each, nan=0.0) for each in (features.audio, features.visual))
    groups = []
    with torch.inference_mode():
        for start in range(0, len(audio), CLIPS_AT_ONCE):
            rows = slice(start, start + CLIPS_AT_ONCE)
            lengths = torch.from_numpy(np.maximum(features.lengths[rows], 1)).long()
            found = model(tensor_on("cpu", audio[rows]), tensor_on("cpu", visual[rows]), *text, lengths)
            groups.append([each.numpy() for each in found])
    heard, seen = (np.concatenate(parts).astype(np.float32) for parts in zip(*groups, strict=True))
    return Logits(np.where(missing, np.float32(np.nan), heard), np.where(missing, np.float32(np.nan), seen))


METHOD = LabelGenerator(
    name="uwav",
    paper="UWAV, CVPR 2025",
    prompts="uwav",
    needs_generator=True,
    needs_thresholds=True,
    logits=logits,
)
