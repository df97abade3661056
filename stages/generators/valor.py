"""VALOR's labels: each second by itself, frame against caption and sound against caption.

Yung-Hsuan Lai, Yen-Chun Chen, Yu-Chiang Frank Wang, "Modality-Independent Teachers Meet Weakly-Supervised
Audio-Visual Event Parser", NeurIPS 2023; released code at commit 2677da9.

| paper | here | shape | meaning |
|---|---|---|---|
| z_v, z_a | `Logits.visual`, `Logits.audio` | (N, T, C) | exp(scale) * cosine of segment and caption |
| theta | thresholds | (C,) | one a class and modality |
| y | weak | (N, C) | the clip's labels |

Departures from the release: thresholds were tuned by hand there; here `calibrate` fits them on the validation
split, unless the published ones are asked for (`--source published`, LLP only). Captions are the dataset's prompt set
`valor` (the release's strings, typos included, on LLP).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.prompts import VALOR_CLASSES
from avvp_pipe.stages.generators.records import Evidence, LabelGenerator, Logits, Thresholds


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


def logits(evidence: Evidence) -> Logits:
    """Static teacher logits, each second by itself (VALOR Eq. 9 before the comparison)."""
    features = evidence.features
    return Logits(
        similarity_logits(features.audio, features.text_audio, log_scale=features.audio_log_scale),
        similarity_logits(features.visual, features.text_visual, log_scale=features.visual_log_scale),
    )


def published_thresholds(classes: Sequence[str]) -> Thresholds:
    """VALOR's hand-tuned thresholds for LLP's 25 classes, in any order (paper Table 6; the release has the same).

    They cut exp(scale) * cosine of CLIP ViT-L/14 (visual) and of CLAP 630k-fusion-best (audio), strictly from above.
    Raises ValueError where these are not the 25 classes of LLP, naming those that are not and those that lack.

    >>> published_thresholds([one.name for one in VALOR_CLASSES]).visual[:4]
    array([20., 15., 18., 14.], dtype=float32)
    """
    known = {one.name: one for one in VALOR_CLASSES}
    unknown, lacking = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
    if unknown or lacking or len(classes) != len(known):
        raise ValueError(
            f"VALOR published thresholds for the {len(known)} classes of LLP, but of these {len(classes)} classes "
            f"{', '.join(unknown[:5]) or 'none'} are not among them, and {', '.join(lacking[:5]) or 'none'} lack; "
            "fit thresholds on your own validation clips: calibrate --source fit"
        )
    return Thresholds(
        audio=np.array([known[name].audio_threshold for name in classes], np.float32),
        visual=np.array([known[name].visual_threshold for name in classes], np.float32),
    )


METHOD = LabelGenerator(
    name="valor",
    paper="VALOR, NeurIPS 2023",
    prompts="valor",
    labeller=lambda generators, fitted: logits,
    published=published_thresholds,
)
