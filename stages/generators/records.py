"""What label generators take and give."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

Method = Literal["video-labels", "zero-shot", "valor", "smooth", "uwav", "ear", "stack"]
"""Of the labels that are made here, as on the command line."""
Calibrated = Literal["zero-shot", "valor", "smooth", "uwav", "ear", "stack"]
"""Those whose logits are cut by thresholds."""

Generators = Mapping[str, "Artifact"]
"""Role -> a temporal generator that `pretrain` made or `import-generator` took over."""
Fitted = Mapping[str, NDArray[Any]]
"""What a method learnt on the validation split besides thresholds, by name."""


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


class Texts(NamedTuple):
    """Text features of C classes, of one prompt set."""

    audio: NDArray[np.float32]
    """(C, Da), L2-normalised."""
    visual: NDArray[np.float32]
    """(C, Dv), L2-normalised."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that a method may look at when it labels N clips: never their dense labels."""

    features: SegmentFeatures
    weak: NDArray[np.bool_]
    """(N, C)."""
    video_ids: tuple[str, ...]
    """N of them."""
    texts: Mapping[str, Texts] = field(default_factory=dict)
    """Prompt set -> its texts, of all there are: for methods that ask several teachers, each with its own."""


class Logits(NamedTuple):
    """Segment-level logits, NaN where the features are."""

    audio: NDArray[np.float32]
    """(N, T, C)."""
    visual: NDArray[np.float32]
    """(N, T, C)."""


class Thresholds(NamedTuple):
    """A class is called where its logit is above its threshold; -inf: always, +inf: never."""

    audio: NDArray[np.float32]
    """(C,)."""
    visual: NDArray[np.float32]
    """(C,)."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Dense labels of the clips that a method is fitted on."""

    audio: NDArray[np.bool_]
    """(M, T, C) heard."""
    visual: NDArray[np.bool_]
    """(M, T, C) seen."""


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How a method that learns more than thresholds is fitted; the others have no use for it.

    Each field is filled with the parameter of the same name of stage `calibrate`.
    """

    seed: int = 0
    folds: int = 5
    """Parts of the validation clips; what is said of one was fitted on the others."""
    mode: str = "auto"
    """How many thresholds there will be: `per-class`, `class-agnostic`, or as the method has it."""
    weak_filter: Literal["both", "audio", "visual", "none"] = "both"
    """The modalities whose labels are kept within the weak label (`cuts.py`)."""
    smooth_widths: str = "per-class"
    """Of the Gaussian of `smooth`: `per-class`, or `one` a modality."""
    stack_inputs: str = "all"
    """Kinds of inputs of `stack`, between commas (`stack_inputs.py`)."""
    stack_strength: float = 0.1
    """The variance that is expected of its weights."""
    stack_spread: float = 0.3
    """How far classes' weights differ, in the standard deviation that is expected of weights; 0: not at all."""
    stack_cuts: str = "presence"
    """`presence`: one cut for a second and one for its clip's best second; `sweep`: the best micro F1."""


@dataclass(frozen=True, slots=True)
class Fit:
    """What fitting a method gave."""

    fitted: Fitted
    logits: Logits
    """Of the M labelled clips, each by a model that has not seen it: what thresholds are chosen on."""
    thresholds: Thresholds | None = None
    """Those that the method chose itself, instead of the sweep."""


Labeller = Callable[[Evidence], Logits]


@dataclass(frozen=True, slots=True)
class LabelGenerator:
    """One method of making segment-level labels."""

    name: str
    """As on the command line."""
    paper: str
    """Where it comes from."""
    prompts: str
    """The prompt set whose text features it compares with, unless another is asked for."""
    labeller: Callable[[Generators, Fitted], Labeller]
    """From what it needs, all loaded once, to the function that labels clips: each clip by itself, so that its logits
    do not depend on the clips beside it."""
    generator: Literal["none", "uwav", "ear", "any"] = "none"
    """Which temporal generator it runs: none, one pre-trained as that paper says, or whichever are given."""
    thresholds: Literal["none", "per-class", "class-agnostic"] = "per-class"
    """Whether its logits are cut by calibrated thresholds, and how many a modality unless otherwise asked for."""
    fit: Callable[[Evidence, Labelled, Generators, FitSettings], Fit] | None = None
    """Learns on the validation split what it needs besides thresholds."""
    soft: Literal["margin", "probability", "certain"] = "margin"
    """Soft labels: sigmoid((logit - threshold) / temperature), one half where the hard label switches;
    sigmoid(logit) of a logit that is calibrated already, whatever the threshold; or the hard label as a number. Hard
    labels are logit > threshold always."""
    published: Callable[[Sequence[str]], Thresholds] | None = None
    """Thresholds that came with the paper, for these classes; ValueError for classes that it had not."""

    @property
    def calibrated(self) -> bool:
        """Whether it needs thresholds."""
        return self.thresholds != "none"
