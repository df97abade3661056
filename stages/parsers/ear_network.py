"""Sizes and switches of EAR's parser; what is known of each and what was chosen stands in `ear.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avvp_pipe.stages.blocks.attention import Norm, one_of
from avvp_pipe.stages.parsers.inputs import AudioProjection, VisualFusion

__all__ = [
    "Aggregation",
    "BatchNormOver",
    "Classifier",
    "Decoding",
    "FusionForm",
    "Network",
    "RelationForm",
    "StaticProjection",
]

FusionForm = Literal["asymmetric", "symmetric", "han", "none"]
RelationForm = Literal["alternate", "uni-then-multi", "uni", "multi", "attention", "none"]
Aggregation = Literal["attend", "concatenate", "none"]
Decoding = Literal["linear", "queries"]
BatchNormOver = Literal["channels", "events"]
Classifier = Literal["class", "event", "squeeze"]
StaticProjection = Literal["own", "shared"]

_CHOICES: dict[str, object] = {
    "fusion": FusionForm, "static_projection": StaticProjection, "norm": Norm, "aggregate": Aggregation,
    "decode": Decoding, "relations": RelationForm, "batch_norm": BatchNormOver, "classifier": Classifier,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Network:
    """Sizes and switches; the defaults are the readings at the head of `ear.py` (42,587,133 parameters).

    With `layers=2` it is about as large as UWAV's parser.
    """

    classes: int = 25
    width: int = 512
    heads: int = 16
    ffn: int = 2048
    layers: int = 5
    """Temporal layers of each modality; HAN layers with `fusion="han"`."""
    dropout: float = 0.1
    audio_width: int = 128
    """Of VGGish; 512 for CLAP."""
    visual_width: int = 2048
    """Of ResNet-152; 768 for CLIP."""
    motion_width: int = 512
    """Of R(2+1)D; 0 where no motion is read."""
    audio_projection: AudioProjection = "linear"
    visual_fusion: VisualFusion = "joint"
    norm: Norm = "post"
    fusion: FusionForm = "asymmetric"
    """"asymmetric" (AMDF); Table VIII's "symmetric" (MSA+MCA) and "han"; "none"."""
    static_projection: StaticProjection = "own"
    """W' of Eq. 10, or the W of the dynamic stream."""
    fusion_residual: bool = True
    """Residuals and norms in Eqs. 11-12."""
    aggregate: Aggregation = "attend"
    decode: Decoding = "linear"
    shared_decoder: bool = True
    event_width: int = 64
    """E."""
    relations: RelationForm = "alternate"
    """"alternate" (ERM); Table IX's "uni-then-multi" (A/V-AV), "uni" (w/o AV), "multi" (w/o A/V) and "attention";
    "none" leaves out Eqs. 13-15."""
    relation_layers: int = 3
    """L."""
    kernel: int = 1
    """Seconds that the convolution of Eq. 15 sees; odd."""
    relation_residual: bool = True
    batch_norm: BatchNormOver = "channels"
    slope: float = 0.01
    """Of LeakyReLU, for what is negative."""
    adjacency_noise: float = 0.01
    """Standard deviation of what is added to the identity at the start."""
    event_heads: int = 4
    """Heads of `relations="attention"`."""
    classifier: Classifier = "class"
    """"class": each class has its own E weights; "event": all share them; "squeeze": C * E -> D -> C."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            one_of(name, getattr(self, name), choices)
        sizes = (self.classes, self.width, self.heads, self.ffn, self.layers, self.audio_width, self.visual_width)
        if min(*sizes, self.event_width, self.relation_layers, self.event_heads) < 1 or self.motion_width < 0:
            raise ValueError(f"EAR's sizes are at least 1 and motion_width at least 0, but {self}")
        if not 0 <= self.dropout < 1 or self.slope < 0 or self.adjacency_noise < 0:
            raise ValueError(f"EAR's dropout is in [0, 1), slope and adjacency_noise are at least 0, but {self}")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"the convolution sees a second and as many before as after it, but kernel = {self.kernel}"
            )

    def widths(self) -> dict[str, int]:
        """The streams that such a parser reads -> how wide they are."""
        motion = {"motion": self.motion_width} if self.motion_width else {}
        return {"audio": self.audio_width, "visual": self.visual_width, **motion}
