"""Video labels: every class of the weak label, in every second, heard and seen. The baseline of every table.

Logits are zero and thresholds -inf, so that the rule of all methods, `logit > threshold and weak`, gives the
weak label everywhere.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import LabelGenerator, Logits, SegmentFeatures

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact


def logits(features: SegmentFeatures, generator: "Artifact | None") -> Logits:
    """Zero for every class in every segment, whether or not the clip could be decoded."""

    def zeros() -> NDArray[np.float32]:
        return np.zeros((*features.audio.shape[:2], len(features.text_audio)), np.float32)

    return Logits(zeros(), zeros())


METHOD = LabelGenerator(
    name="video-labels",
    paper="the common baseline",
    prompts="uwav",
    needs_generator=False,
    needs_thresholds=False,
    logits=logits,
)
