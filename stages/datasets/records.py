"""What every reader returns: one table of clips, with weak labels, dense labels where they are known, and a report."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.datasets.prompts import Prompts
from avvp_pipe.stages.rows import JOINT, NONE, SEPARATE

SPLITS = ("train", "val", "test")

CELLS_LIMIT = 2**33
"""Clips times segments of the longest times classes: bytes of each of three arrays."""


class DatasetError(ValueError):
    """An annotation file says something that cannot be read; the message names file, line and remedy."""


@dataclass(frozen=True, slots=True)
class Event:
    """A class over a stretch of time."""

    label: str
    onset: float
    """Seconds from the clip's start."""
    offset: float
    """Seconds; the event covers [onset, offset)."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One clip as a reader found it."""

    video_id: str
    split: str
    path: str
    """Of the video file, empty where there is none."""
    labels: tuple[str, ...]
    """Weak labels: classes that occur somewhere in it."""
    seconds: int = 10
    audio_events: tuple[Event, ...] | None = None
    """What is heard, and when; None where that is not known."""
    visual_events: tuple[Event, ...] | None = None
    """What is seen, and when; known together with `audio_events`."""
    events: tuple[Event, ...] | None = None
    """What is heard and seen at once, where only that is known."""

    @property
    def dense(self) -> int:
        """Which of its seconds' labels are known: NONE, SEPARATE or JOINT."""
        if self.audio_events is not None and self.visual_events is not None:
            return SEPARATE
        return NONE if self.events is None else JOINT

    @property
    def happening(self) -> frozenset[str]:
        """Classes of its events."""
        events = (*(self.audio_events or ()), *(self.visual_events or ()), *(self.events or ()))
        return frozenset(event.label for event in events)

    @property
    def named(self) -> frozenset[str]:
        """Classes of its events and its weak labels."""
        return self.happening.union(self.labels)


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of oddity in the annotations. Nothing is repaired; what upstream ignores is ignored."""

    code: str
    count: int
    message: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset:
    """N clips, T segments of one second, C classes."""

    video_ids: tuple[str, ...]
    splits: tuple[str, ...]
    paths: tuple[str, ...]
    classes: tuple[str, ...]
    weak: NDArray[np.bool_]
    """(N, C)."""
    lengths: NDArray[np.int32]
    """(N,) segments of each clip."""
    audio: NDArray[np.bool_]
    """(N, T, C) heard; False where not known."""
    visual: NDArray[np.bool_]
    """(N, T, C) seen; False where not known."""
    audio_visual: NDArray[np.bool_]
    """(N, T, C) heard and seen at once."""
    dense: NDArray[np.uint8]
    """(N,) NONE, SEPARATE or JOINT."""
    prompts: Mapping[str, Prompts]
    """Prompt set -> what the teachers are asked."""
    report: tuple[Finding, ...] = field(default=())

    def __post_init__(self) -> None:
        clips, classes = len(self.video_ids), len(self.classes)
        for name in ("splits", "paths"):
            if len(getattr(self, name)) != clips:
                raise DatasetError(f"{name} should name {clips} clips, but names {len(getattr(self, name))}")
        for what, names in (("video id", self.video_ids), ("class", self.classes)):
            if doubles := [name for name, count in Counter(names).items() if count > 1]:
                raise DatasetError(f"each {what} names one thing, but these occur twice: {', '.join(doubles[:5])}")
        if strange := sorted(set(self.splits) - set(SPLITS)):
            raise DatasetError(f"splits should be {', '.join(SPLITS)}, but are {', '.join(strange)} too")
        segments = int(self.lengths.max(initial=0))
        wanted = {"weak": (clips, classes), "lengths": (clips,), "dense": (clips,)}
        wanted |= dict.fromkeys(("audio", "visual", "audio_visual"), (clips, segments, classes))
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise DatasetError(f"{name} should have shape {shape}, but has {getattr(self, name).shape}")


def heard_and_seen(dataset: Dataset) -> Dataset:
    """The same clips, where what is known only jointly is taken as labels of each modality: JOINT becomes SEPARATE.

    What happens is then both heard and seen, and what does not is neither. The second is not annotated: a sound
    without its picture counts as nothing. Methods that are calibrated and scored modality by modality need it.
    """
    joint = (dataset.dense == JOINT)[:, None, None]
    return replace(
        dataset,
        audio=np.where(joint, dataset.audio_visual, dataset.audio),
        visual=np.where(joint, dataset.audio_visual, dataset.visual),
        dense=np.where(dataset.dense == JOINT, SEPARATE, dataset.dense).astype(np.uint8),
    )


def build_dataset(
    clips: Sequence[Clip],
    classes: Sequence[str],
    *,
    prompts: Mapping[str, Prompts],
    report: Sequence[Finding] = (),
) -> Dataset:
    """Put clips into arrays. Events are unioned; an event covers the segments it touches, within its clip.

    Raises DatasetError where an id occurs twice or a class is unknown (readers report both with line numbers first),
    and where the arrays would have more than CELLS_LIMIT cells.
    """
    column = {name: index for index, name in enumerate(classes)}
    _refuse_unknown(clips, column)
    lengths = np.array([clip.seconds for clip in clips], np.int32)
    shape = (len(clips), int(lengths.max(initial=0)), len(classes))
    if math.prod(shape) > CELLS_LIMIT:
        raise DatasetError(
            f"{shape[0]} clips of up to {shape[1]} s and {shape[2]} classes are {math.prod(shape)} cells; more than "
            f"{CELLS_LIMIT} are not held in memory. Cut long clips, or make several datasets"
        )
    audio, visual, both = (np.zeros(shape, bool) for _ in range(3))
    weak = np.zeros((len(clips), len(classes)), bool)
    for row, clip in enumerate(clips):
        weak[row, [column[label] for label in clip.labels]] = True
        _rasterise(audio[row], clip.audio_events, column, clip.seconds)
        _rasterise(visual[row], clip.visual_events, column, clip.seconds)
        _rasterise(both[row], clip.events, column, clip.seconds)
    dense = np.array([clip.dense for clip in clips], np.uint8)
    return Dataset(
        video_ids=tuple(clip.video_id for clip in clips),
        splits=tuple(clip.split for clip in clips),
        paths=tuple(clip.path for clip in clips),
        classes=tuple(classes),
        weak=weak,
        lengths=lengths,
        audio=audio,
        visual=visual,
        audio_visual=np.where((dense == SEPARATE)[:, None, None], audio & visual, both),
        dense=dense,
        prompts=prompts,
        report=tuple(report),
    )


def _refuse_unknown(clips: Sequence[Clip], column: Mapping[str, int]) -> None:
    for clip in clips:
        if strange := clip.named - column.keys():
            raise DatasetError(f"clip {clip.video_id} has the unknown class {min(strange)!r}; add it to the classes")


def _rasterise(
    grid: NDArray[np.bool_], events: Sequence[Event] | None, column: Mapping[str, int], seconds: int
) -> None:
    for event in events or ():
        start, stop = max(int(np.floor(event.onset)), 0), min(int(np.ceil(event.offset)), seconds)
        grid[start : max(stop, 0), column[event.label]] = True
