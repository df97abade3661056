"""A temporal generator at work: it listens and looks at the whole clip at once (UWAV's labels, and EAR's).

Clips go through the network in groups, each clip seeing itself only. What lies beside a clip in its group, and how
far the group is padded, changes its logits by rounding at most (about 1e-6 of their size): the products are of other
shapes. One and the same list of clips gives the same bits, since its groups are cut from its beginning.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Evidence, Fitted, Generators, Labeller, Logits, SegmentFeatures

if TYPE_CHECKING:
    from avvp_pipe.stages.generators.uwav import TemporalGenerator

CLIPS_AT_ONCE = 256
"""So many that matrix products are large, so few that what is between layers stays in the cache."""


def labeller(generators: Generators, fitted: Fitted) -> Labeller:
    """Load the one generator among `generators`; the function labels clips in fixed groups, NaN where features are.

    The frozen generator is handed the text features of the dataset's classes, which it need not have met in
    pre-training. The returned function raises ValueError where the features have other widths than it was trained on.
    """
    import torch

    from avvp_pipe.stages.blocks.stored import load_network
    from avvp_pipe.stages.blocks.weights import rounded
    from avvp_pipe.stages.generators.uwav import Network, TemporalGenerator

    (generator,) = generators.values()
    model = load_network(generator, Network, TemporalGenerator)
    rounded_model = cache(lambda: rounded(model, torch.get_autocast_dtype("cpu")))

    def logits(evidence: Evidence) -> Logits:
        _check_widths(str(generator.reference), model, evidence.features)
        return _logits(model if not torch.is_autocast_enabled("cpu") else rounded_model(), evidence.features)

    return logits


def _check_widths(name: str, model: "TemporalGenerator", features: SegmentFeatures) -> None:
    wanted = (model.network.audio_width, model.network.visual_width)
    for what, came in (
        ("segments", (features.audio.shape[2], features.visual.shape[2])),
        ("texts", (features.text_audio.shape[1], features.text_visual.shape[1])),
    ):
        if came != wanted:
            raise ValueError(
                f"{name} was trained on audio features of {wanted[0]} numbers and visual ones of {wanted[1]}, but the "
                f"{what} came with {came[0]} and {came[1]}; extract with the teachers that it was trained on, or "
                "pre-train on features of these"
            )


def _logits(model: "TemporalGenerator", features: SegmentFeatures) -> Logits:
    import torch

    from avvp_pipe.stages.blocks.device import tensor_on

    text = (tensor_on("cpu", features.text_audio), tensor_on("cpu", features.text_visual))
    clips, segments, classes = (*features.audio.shape[:2], len(features.text_audio))
    found = Logits(*(np.full((clips, segments, classes), np.nan, np.float32) for _ in range(2)))
    with torch.inference_mode():
        for start in range(0, clips, CLIPS_AT_ONCE):
            rows = slice(start, start + CLIPS_AT_ONCE)
            # A clip that failed is all NaN; one second of it is computed, of zeros, and thrown away.
            lengths = np.clip(features.lengths[rows], 1, segments).astype(np.int64)
            longest = int(lengths.max())
            given = [each[rows, :longest] for each in (features.audio, features.visual)]
            there = [~np.isnan(each[:, :, 0]) for each in given]
            tensors = [tensor_on("cpu", _filled(each, known)) for each, known in zip(given, there, strict=True)]
            parsed = model(*tensors, *text, tensor_on("cpu", lengths))
            for out, logits, known in zip(found, parsed, there, strict=True):
                out[rows, :longest][known] = logits.float().numpy()[known]
    return found


def _filled(features: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Zero where nothing is known."""
    return features if known.all() else np.where(known[:, :, None], features, np.float32(0))
