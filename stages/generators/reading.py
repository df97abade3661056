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
    if "audio_log_scale" not in features.attrs:
        raise StoreError(
            f"{features.reference} does not say how its teachers scale similarities "
            f"({features.attrs.get('origin', 'origin unknown')}); "
            "logits need features that were extracted here, or imported in the layout `uwav`"
        )
    return SegmentFeatures(
        audio=features.rows("audio", rows).astype(np.float32),
        visual=features.rows("visual", rows).astype(np.float32),
        text_audio=features.array(f"text_audio/{prompts}").astype(np.float32),
        text_visual=features.array(f"text_visual/{prompts}").astype(np.float32),
        audio_log_scale=float(features.attrs["audio_log_scale"]),
        visual_log_scale=float(features.attrs["visual_log_scale"]),
        lengths=features.rows("lengths", rows),
    )
