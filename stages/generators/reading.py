"""From a features artifact to the arrays that label generators take."""

from typing import TYPE_CHECKING

import numpy as np

from avvp_pipe.stages.generators.records import SegmentFeatures
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact


def segment_features(features: "Artifact", *, prompts: str, rows: slice = slice(None)) -> SegmentFeatures:
    """The features of some clips, with the texts of one prompt set.

    Raises StoreError naming the prompt sets there are.
    """
    if f"text_visual/{prompts}" not in features:
        known = [name.removeprefix("text_visual/") for name in features.array_names() if name.startswith("text_vi")]
        raise StoreError(f"{features.reference} has no prompt set {prompts!r}; it has {', '.join(known)}")
    return SegmentFeatures(
        audio=np.asarray(features.lazy("audio")[rows], dtype=np.float32),
        visual=np.asarray(features.lazy("visual")[rows], dtype=np.float32),
        text_audio=features.array(f"text_audio/{prompts}"),
        text_visual=features.array(f"text_visual/{prompts}"),
        audio_log_scale=float(features.attrs["audio_log_scale"]),
        visual_log_scale=float(features.attrs["visual_log_scale"]),
        lengths=np.asarray(features.lazy("lengths")[rows]),
    )
