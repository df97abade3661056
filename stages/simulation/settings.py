"""The simulation's numbers: of each teacher, how it sees or hears.

They were tuned by hand on LLP's validation split, over three worlds, until labels made as VALOR makes them (cosines,
a threshold a class fitted on validation) score about as VALOR's published labels do. A class's text and its prototype
agree less in vision than CLIP's do, and all texts share less: with CLIP's own cone a small generator leaves vision to
its clip-level average within the few epochs of a simulation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Sense = Literal["audio", "visual"]


@dataclass(frozen=True, slots=True)
class Modality:
    """One teacher. Sizes are lengths of vectors before the sum is normalised."""

    width: int
    """D of its features."""
    log_scale: float
    """Natural logarithm of the factor before its cosines."""
    cone: float
    """Share (as a cosine) that all texts have in common."""
    baseline: float
    """Cosine of a segment in which nothing happens with any text."""
    liking: float
    """Size of what makes it like some texts better than others: why classes need thresholds of their own."""
    offset: float
    """Size of what all segments share, and no text does."""
    gap: float
    """Cosine of a class's prototype with its text, without what all texts share: the modality gap."""
    gain: float
    """Size of a class in a segment in which it is evident."""
    gain_spread: float
    """Of the classes: standard deviation of the gain's logarithm."""
    clip_spread: float
    """The same, of clips of one class: some are hard to recognise."""
    time_spread: float
    """The same, of the seconds of one clip."""
    lost: float
    """Share of an event's seconds in which the teacher perceives nothing."""
    leak: float
    """Share of a clip's other seconds in which a class that the clip names seems to be there."""
    leak_level: float
    """Size of that, in gains."""
    distractors: float
    """Mean number of classes a clip that seem to be there for a while, but are not."""
    scene: float
    """Size of what a clip shows or plays throughout."""
    scene_named: float
    """The part of it that resembles classes."""
    noise: float
    """Size of what changes from second to second."""
    noise_named: float
    """The part of it that resembles classes."""
    memory: float
    """Correlation of that noise from one second to the next."""
    voice_leak: float
    """`leak` of voices: who is seen need not speak."""
    voice_gain: float
    """Gain of voices, in gains of others."""


AUDIO = Modality(
    width=512,
    log_scale=3.2912,
    cone=0.3,
    baseline=0.02,
    liking=0.4,
    offset=0.75,
    gap=0.7,
    gain=0.25,
    gain_spread=0.25,
    clip_spread=0.35,
    time_spread=0.2,
    lost=0.22,
    leak=0.2,
    leak_level=0.7,
    distractors=0.7,
    scene=0.55,
    scene_named=0.125,
    noise=0.06,
    noise_named=0.145,
    memory=0.6,
    voice_leak=0.2,
    voice_gain=1.0,
)
VISUAL = Modality(
    width=768,
    log_scale=4.6052,
    cone=0.4,
    baseline=0.15,
    liking=0.15,
    offset=0.75,
    gap=0.42,
    gain=0.3,
    gain_spread=0.2,
    clip_spread=0.35,
    time_spread=0.2,
    lost=0.15,
    leak=0.25,
    leak_level=0.44,
    distractors=0.7,
    scene=0.55,
    scene_named=0.15,
    noise=0.2,
    noise_named=0.15,
    memory=0.7,
    voice_leak=0.6,
    voice_gain=0.7,
)
SENSES: Mapping[Sense, Modality] = MappingProxyType({"audio": AUDIO, "visual": VISUAL})
