"""VALOR's labels: each second by itself, frame against caption and sound against caption.

Yung-Hsuan Lai, Yen-Chun Chen, Yu-Chiang Frank Wang, "Modality-Independent Teachers Meet Weakly-Supervised
Audio-Visual Event Parser", NeurIPS 2023; released code at commit 2677da9.

| paper | here | shape | meaning |
|---|---|---|---|
| z_v, z_a | `Logits.visual`, `Logits.audio` | (N, T, C) | exp(scale) * cosine of segment and caption |
| theta | thresholds | (C,) | one a class and modality |
| y | weak | (N, C) | the clip's labels |

Departures from the release: thresholds were tuned by hand there; here `calibrate` fits them on the validation
split. Captions are the dataset's prompt set `valor` (the release's strings, typos included, on LLP).
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import LabelGenerator, Logits, SegmentFeatures

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact


def similarity_logits(
    segments: NDArray[np.float32], texts: NDArray[np.float32], *, log_scale: float
) -> NDArray[np.float32]:
    """exp(log_scale) * cosine of every segment with every text.

    segments (N, T, D) and texts (C, D), both L2-normalised. Returns (N, T, C); NaN segments give NaN.
    The `logits_per_image` of CLIP and its counterpart in CLAP (VALOR section 3.2, released code).

    >>> similarity_logits(np.eye(2, dtype=np.float32)[None], np.eye(2, dtype=np.float32), log_scale=0.0)
    array([[[1., 0.],
            [0., 1.]]], dtype=float32)
    """
    return np.asarray(np.exp(log_scale) * (segments @ texts.T), dtype=np.float32)


def logits(features: SegmentFeatures, generator: "Artifact | None") -> Logits:
    """Static teacher logits, each second by itself (VALOR Eq. 9 before the comparison)."""
    return Logits(
        similarity_logits(features.audio, features.text_audio, log_scale=features.audio_log_scale),
        similarity_logits(features.visual, features.text_visual, log_scale=features.visual_log_scale),
    )


METHOD = LabelGenerator(
    name="valor",
    paper="VALOR, NeurIPS 2023",
    prompts="valor",
    needs_generator=False,
    needs_thresholds=True,
    logits=logits,
)
