"""What a report shows, as frozen records: numbers and text, no HTML."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Percent = float | None
"""None where it is not known."""
METRICS = ("A", "V", "AV", "Type", "Event")
LEVELS = ("segment", "event")
MODALITIES = ("audio", "visual")


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One line of a table of scores."""

    title: str
    reference: str
    """Of the scores; empty where the line is a baseline or was published."""
    segment: Mapping[str, Percent]
    event: Mapping[str, Percent]
    note: str = ""
    """Where the numbers come from, and what speaks against them."""
    errors: tuple[Percent, ...] = ()
    """Expected calibration error of the soft labels, audio and visual, in percent; empty where there is none."""
    published: bool = False
    best: frozenset[tuple[str, str]] = frozenset()
    """(level, metric) in which no other measured line of the table is better."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """The scores on one split whose seconds are labelled in one way."""

    split: str
    dense: str
    clips: tuple[int, ...]
    """How many clips were scored; several numbers where methods failed on others."""
    pooling: str
    rows: tuple[ScoreRow, ...]


@dataclass(frozen=True, slots=True)
class ClassTable:
    """Of every class, one number a method."""

    title: str
    unit: str
    columns: tuple[str, ...]
    classes: tuple[str, ...]
    values: tuple[tuple[Percent, ...], ...]
    """Class by class, percent."""
    mark_best: bool = True


@dataclass(frozen=True, slots=True)
class ClassCurve:
    """F1 over the threshold of one class and modality, thinned out for drawing."""

    name: str
    modality: str
    thresholds: tuple[float, ...]
    f1: tuple[float, ...]
    """In percent."""
    chosen: float
    """The threshold; may be infinite."""
    chosen_f1: Percent
    precision: Percent
    recall: Percent
    spread: tuple[float, float] | None
    """Percentiles of the thresholds of bootstrap draws; None where none were drawn."""


@dataclass(frozen=True, slots=True)
class Curves:
    """The thresholds of one method."""

    title: str
    reference: str
    facts: str
    """On how many clips, by which rule."""
    percentiles: tuple[int, ...]
    classes: tuple[ClassCurve, ...]


@dataclass(frozen=True, slots=True)
class History:
    """How one training went."""

    title: str
    reference: str
    epochs: tuple[float, ...]
    losses: Mapping[str, tuple[Percent, ...]]
    scores: Mapping[str, tuple[Percent, ...]]
    """Validation scores, percent."""
    best_epoch: int | None
    selected_by: str


@dataclass(frozen=True, slots=True)
class Failures:
    """The clips that one artifact could not process."""

    reference: str
    counts: Mapping[str, int]
    listed: tuple[tuple[str, str, str], ...]
    """(clip, code, message), the first of them."""
    total: int


@dataclass(frozen=True, slots=True)
class Quality:
    """What is odd about the annotations, and what failed."""

    clips: Mapping[str, int]
    """Split -> clips."""
    labelled: Mapping[str, int]
    """Split -> clips whose seconds are labelled."""
    findings: tuple[tuple[str, int, str, tuple[str, ...]], ...]
    """(code, how often, message, examples) of the dataset's data-quality report."""
    failures: tuple[Failures, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one artifact comes from."""

    reference: str
    stage: str
    version: int
    finished: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    sources: Mapping[str, str]
    software: Mapping[str, str]
    there: bool
    """Whether it is in the store; else it is known from records alone, or not at all."""


@dataclass(frozen=True, slots=True)
class SetInfo:
    """One set of labels that the viewer shows."""

    title: str
    reference: str
    kind: str
    """truth, labels, parser or predictions."""
    method: str
    thresholds: tuple[tuple[float | str, ...], ...]
    """Of logits: audio, visual; of each class. `always` and `never` where infinite. Empty where there are no logits."""


@dataclass(frozen=True, slots=True)
class ClipData:
    """The clips of the viewer: N clips, T seconds of the longest, S sets, E pairs of a clip and a class of it."""

    video_ids: tuple[str, ...]
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    """Of each clip."""
    lengths: NDArray[np.uint16]
    known: NDArray[np.uint8]
    """(N,) as the dataset's `dense`: 0 seconds are not labelled, 1 heard and seen apart, 2 only what is both."""
    sets: tuple[SetInfo, ...]
    """The truth first, where there is any."""
    status: NDArray[np.uint8]
    """(S, N) 0 clip is not in the set, 1 there, else its code of failure."""
    distance: NDArray[np.float32]
    """(S, N) 1 - intersection over union with the truth, NaN where it is not known."""
    dispute: NDArray[np.float32]
    """(N,) mean distance of the sets from what most of them say."""
    counts: NDArray[np.uint16]
    """(N,) classes of each clip: entries."""
    entry_class: NDArray[np.uint16]
    """(E,)"""
    entry_weak: NDArray[np.bool_]
    """(E,) whether the weak label names the class."""
    cells: NDArray[np.uint8]
    """(S, E, 2, T): hard label in the highest bit, soft label of 0 to 127 in the others."""
    logits: Mapping[int, NDArray[np.float16]]
    """Set -> (E, 2, T)."""
    chosen: str
    """How the clips were chosen, in words."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Small pictures of clips: frames of the seconds side by side, the spectrogram below."""

    strips: tuple[bytes, ...]
    """WebP of each clip, b"" where there is none."""
    reasons: tuple[str, ...]
    """Why there is none; empty where there is one."""
    facts: str
    """Size and quality, in words."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything on the page."""

    title: str
    shown: tuple[tuple[str, str], ...]
    """(kind, reference) of what was asked for and what it leads to."""
    made: str
    """When, in words."""
    tables: tuple[ScoreTable, ...]
    class_scores: tuple[ClassTable, ...]
    rates: tuple[ClassTable, ...]
    curves: tuple[Curves, ...]
    histories: tuple[History, ...]
    quality: Quality | None
    origins: tuple[Origin, ...]
    clips: ClipData | None
    pictures: Pictures
    notes: tuple[str, ...] = ()
    """What the reader has to know of how this report was made."""
