"""What label generators take and give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact


@dataclass(frozen=True, slots=True)
class SegmentFeatures:
    """Features of N clips of up to T segments, and of the texts of C classes."""

    audio: NDArray[np.float32]
    """(N, T, Da), L2-normalised; NaN in failed clips and beyond a clip's length."""
    visual: NDArray[np.float32]
    """(N, T, Dv), likewise."""
    text_audio: NDArray[np.float32]
    """(C, Da), L2-normalised."""
    text_visual: NDArray[np.float32]
    """(C, Dv), L2-normalised."""
    audio_log_scale: float
    """Natural logarithm of the factor that the audio teacher puts before a cosine."""
    visual_log_scale: float
    """Likewise of the visual teacher."""
    lengths: NDArray[np.int32]
    """(N,) valid segments."""


class Logits(NamedTuple):
    """Segment-level logits, NaN where the features are."""

    audio: NDArray[np.float32]
    """(N, T, C)."""
    visual: NDArray[np.float32]
    """(N, T, C)."""


@dataclass(frozen=True, slots=True)
class LabelGenerator:
    """One method of making segment-level labels."""

    name: str
    """As on the command line."""
    paper: str
    """Where it comes from."""
    prompts: str
    """The prompt set whose text features it compares with."""
    needs_generator: bool
    """Whether it runs a temporal generator that `pretrain` made."""
    needs_thresholds: bool
    """Whether its logits are cut by calibrated thresholds."""
    logits: "Callable[[SegmentFeatures, Artifact | None], Logits]"
    """Features, and the generator where it needs one, to logits."""
