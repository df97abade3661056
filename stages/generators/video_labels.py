"""Video labels: every class of the weak label, in every second, heard and seen. The baseline of every table.

Logits are zero and thresholds -inf, so that the rule of all methods, `logit > threshold and weak`, gives the
weak label everywhere.
"""

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Evidence, LabelGenerator, Logits


def logits(evidence: Evidence) -> Logits:
    """Zero for every class in every segment, whether or not the clip could be decoded."""

    def zeros() -> NDArray[np.float32]:
        return np.zeros((*evidence.features.audio.shape[:2], evidence.weak.shape[1]), np.float32)

    return Logits(zeros(), zeros())


METHOD = LabelGenerator(
    name="video-labels",
    paper="the common baseline",
    prompts="uwav",
    labeller=lambda generators, fitted: logits,
    thresholds="none",
    soft="certain",
)
