"""What parsers take and give, and what the registry knows of each. No torch at import."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from avvp_pipe.stages.blocks.schedules import Moment

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Batch",
    "Gate",
    "GateSettings",
    "Moment",
    "Objective",
    "Outputs",
    "ParserMethod",
    "ParserName",
    "Streams",
    "Terms",
]

ParserName = Literal["han", "valor", "valor+", "valor++", "uwav", "uwav-clip-clap", "coleaf", "ear"]
"""As on the command line."""
Gate = Literal["global", "modality", "none"]
Streams = Mapping[str, "Tensor"]
"""What a network reads: "audio", "visual", "motion" -> (B, T, width); "audio_map" -> (B, 64, width)."""
Terms = Mapping[str, "Tensor"]
"""Named scalars whose sum is minimised."""


class Outputs(NamedTuple):
    """What the parser says of a batch of clips."""

    video_probs: "Tensor"
    """(B, C): the class occurs somewhere in the clip, heard or seen. At least 0, and at times a little over 1:
    the weights over time and over modality are made apart, and their products need not add up to one."""
    audio_video_probs: "Tensor"
    """(B, C) in [0, 1]: somewhere in the clip, heard."""
    visual_video_probs: "Tensor"
    """(B, C) in [0, 1]: somewhere in the clip, seen."""
    audio_logits: "Tensor"
    """(B, T, C), per second, heard."""
    visual_logits: "Tensor"
    """(B, T, C), per second, seen."""
    audio_features: "Tensor"
    """(B, T, D), after attention, what the module's `classifier` reads; mixup blends these."""
    visual_features: "Tensor"
    """(B, T, D)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Some clips of one split, on the device."""

    streams: Streams
    weak: "Tensor"
    """(B, C) bool."""
    lengths: "Tensor"
    """(B,) int64 real seconds; what lies beyond is padding and may be NaN."""
    targets: Mapping[str, "Tensor"] = field(default_factory=dict)
    """audio, visual -> (B, T, C) floats in [0, 1]; empty where nothing supervises seconds."""


Objective = Callable[[Any, Batch, Moment, Any], Iterable[tuple[str, Terms]]]
"""(module, batch, moment, switches) -> for each parameter group, its name and its terms.

A generator function, where a later group's terms depend on an earlier one's step: the loop sums the terms, goes
backward, clips and steps the group before it asks for the next.  A module of one group calls it "all".
"""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """How probabilities become decisions; fields as the keywords of `han.predict`."""

    gate: Gate = "global"
    gate_threshold: float = 0.5
    threshold: float = 0.5
    strict: bool = True


@dataclass(frozen=True, slots=True)
class ParserMethod:
    """One parser of one paper: its network, how its decisions are made, and how it was trained."""

    name: ParserName
    paper: str
    """Where it comes from, as tables cite it."""
    network: Any
    """Its published sizes: an instance of a frozen dataclass whose fields are numbers, texts, booleans or None.
    It has `classes`, and `audio_width`, `visual_width`, `motion_width` as far as the streams it reads ("audio_map"
    is `audio_width` wide).  A network that can do without motion has `inputs`, "classic" or "clip_clap", or takes
    `motion_width=0`."""
    build: "Callable[[Any], nn.Module]"
    """From such a record to the module, whose `forward(streams, lengths=None) -> Outputs`.  It has `classifier`
    (D -> C) where its features may be mixed up, and `parameter_groups() -> dict[str, list[Parameter]]`
    where its groups are stepped one after another."""
    reads: tuple[str, ...] = ("audio", "visual", "motion")
    """Streams of the published form."""
    gate: GateSettings = GateSettings()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Parameter of `train-parser` -> its published value, where it is not UWAV's (`train_parser.PUBLISHED`)."""
    objective: "Literal['shared'] | Objective" = "shared"
    """"shared": the terms of `objectives.py` that the parameters switch on; or the parser's own function."""
    switches: Any = None
    """Of an objective of its own: an instance of a frozen dataclass with its defaults, handed to it as it was
    settled; `train-parser --switches name=value,...` changes fields of it and of `network`."""
