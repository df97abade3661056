"""UnAV-100: one JSON file (ttgeng233/UnAV) of untrimmed videos and the events that are heard and seen in them.

6,489 train, 2,134 validation and 2,167 test videos of 10 to 60 seconds, 100 classes, 30,059 events.

    {"version": "unav100", "database": {"<YouTube id>": {"duration": 47.68, "subset": "train",
        "annotations": [{"segment": [13.01, 15.783], "label": "skateboarding", "label_id": 36}, ...]}}}

A video has T = ceil(duration) segments of one second, and an event covers floor(start) to ceil(end) - 1: the grid of
UWAV's released loader (CVPR 2025). Events are audio-visual: what is heard alone, or seen alone, is not annotated.
Weak labels, which the file does not have, are the classes of a video's events.
"""

import difflib
import math
from collections import Counter
from collections.abc import Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from avvp_pipe.stages.datasets.overlap import YOUTUBE_ID
from avvp_pipe.stages.datasets.prompts import prompt_sets
from avvp_pipe.stages.datasets.records import Clip, Dataset, DatasetError, Event, Finding, build_dataset
from avvp_pipe.stages.datasets.strict_json import read_strict_json

SOURCE = "the repository ttgeng233/UnAV on GitHub"
FILE = "unav100_annotations.json"
SUBSETS = {"train": "train", "validation": "val", "test": "test"}
"""Its names of the splits, and ours."""
BYTES_LIMIT = 32 * 2**20
"""Of the file, which has 3 MB."""
SECONDS_LIMIT = 600
"""Of a video; the longest of the real file has 60 s."""
CLASSES = (
    "man speaking", "woman speaking", "kid speaking", "male singing", "people laughing", "car passing by",
    "baby laughter", "wind noise", "people clapping", "people shouting", "people crowd", "female singing",
    "dog barking", "playing acoustic guitar", "people eating", "people cheering", "basketball bounce",
    "engine knocking", "playing tennis", "baby babbling", "striking bowling", "playing badminton", "cat meowing",
    "people slapping", "playing piano", "baby crying", "people burping", "orchestra", "playing drum kit",
    "playing violin", "machine gun shooting", "child singing", "people nose blowing", "playing electronic organ",
    "people sneezing", "dog howling", "skateboarding", "playing base guitar", "auto racing", "sea waves",
    "playing table tennis", "people coughing", "people whispering", "playing ukulele", "sheep bleating",
    "playing tabla", "fire truck siren", "playing volleyball", "beat boxing", "playing trumpet", "thunder",
    "playing cello", "playing harp", "hammering nails", "people running", "sailing", "telephone bell ringing",
    "frog croaking", "driving motorcycle", "playing cornet", "playing clarinet", "train wheels squealing",
    "playing flute", "playing trombone", "playing erhu", "bull bellowing", "raining", "skidding", "chainsawing trees",
    "police car siren", "playing saxophone", "fireworks banging", "driving buses", "tap dancing", "airplane flyby",
    "people whistling", "train horning", "vacuum cleaner cleaning floors", "playing accordion", "bird chirping",
    "vehicle honking", "church bell ringing", "playing snare drum", "playing synthesizer",
    "typing on computer keyboard", "singing choir", "lions roaring", "people slurping", "helicopter",
    "horse clip-clop", "water burbling", "lawn mowing", "playing banjo", "playing zither", "playing harmonica",
    "people battle cry", "people sobbing", "ambulance siren", "rope skipping", "hair dryer drying",
)  # fmt: skip
"""In the order of `label_id`, which is that of UWAV's list, too."""
_IDS = {name: index for index, name in enumerate(CLASSES)}


def unav_file(source: Path) -> Path:
    """The annotation file: `source` itself, or the one of the official name in that folder.

    Raises FileNotFoundError saying where it comes from.
    """
    path = source / FILE if source.is_dir() else source
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; wanted UnAV-100's {FILE}, or its folder: it is in {SOURCE}")
    return path


def read_unav(source: Path, *, videos: Path | None = None) -> Dataset:
    """Read the file, or the one in that folder. `videos`: folder of `<YouTube id>.mp4`.

    Dense labels are known only jointly (JOINT), for all splits. Raises FileNotFoundError where there is no file,
    DatasetError for one that is not of the form above, naming the video and the event.
    """
    path = unav_file(source)
    form = f'{{"database": {{id: {{duration, subset, annotations}}}}}} of at most {BYTES_LIMIT} bytes, as in {SOURCE}'
    try:
        document = read_strict_json(path, limit=BYTES_LIMIT, what=form)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict) or not database:
        raise DatasetError(f"{path} has no videos in its member `database`; wanted {form}")
    clips = [_clip(f"{path}, video {name!r}", name, record, videos) for name, record in database.items()]
    return build_dataset(clips, CLASSES, prompts=prompt_sets(CLASSES), report=_findings(clips))


def _clip(place: str, name: str, record: Any, videos: Path | None) -> Clip:
    if not YOUTUBE_ID.fullmatch(name):
        raise DatasetError(
            f"{place}: ids of UnAV-100 are YouTube ids, 11 letters, digits, - and _; "
            "describe videos of other names in a manifest (--reader manifest)"
        )
    duration, subset, annotations = (_member(place, record, key) for key in ("duration", "subset", "annotations"))
    if type(duration) not in (int, float) or not 0 < duration <= SECONDS_LIMIT:
        raise DatasetError(
            f"{place}: duration should be above 0 and at most {SECONDS_LIMIT} s, but is {_short(duration)}"
        )
    if not isinstance(subset, str) or subset not in SUBSETS:
        raise DatasetError(f"{place}: subset should be one of {', '.join(SUBSETS)}, but is {_short(subset)}")
    if not isinstance(annotations, list):
        raise DatasetError(f"{place}: annotations should be a list of events, but is {_short(annotations)}")
    events = tuple(_event(f"{place}, event {index}", item, duration) for index, item in enumerate(annotations))
    return Clip(
        video_id=name,
        split=SUBSETS[subset],
        path=str((videos / f"{name}.mp4").resolve()) if videos else f"{name}.mp4",
        labels=tuple(dict.fromkeys(event.label for event in events)),
        seconds=math.ceil(duration),
        events=events,
    )


def _event(place: str, item: Any, duration: float) -> Event:
    segment, label, label_id = (_member(place, item, key) for key in ("segment", "label", "label_id"))
    if not isinstance(segment, list) or len(segment) != 2 or any(type(time) not in (int, float) for time in segment):
        raise DatasetError(f"{place}: segment should be [start, end] in seconds, but is {_short(segment)}")
    if not 0 <= segment[0] < segment[1] <= duration:
        raise DatasetError(
            f"{place}: segment {_short(segment)} should begin at 0 or later, end after it begins, "
            f"and end within the video's {duration} s; correct it, or leave the event out"
        )
    if not isinstance(label, str) or label not in _IDS:
        close = difflib.get_close_matches(label, CLASSES, n=1) if isinstance(label, str) else []
        hint = f"did you mean {close[0]!r}?" if close else f"UnAV-100 has {', '.join(CLASSES)}"
        raise DatasetError(f"{place}: unknown label {_short(label)}; {hint}")
    if type(label_id) is not int or label_id != _IDS[label]:
        named = type(label_id) is int and 0 <= label_id < len(CLASSES)
        meant = f", which is {CLASSES[label_id]!r}" if named else ""
        raise DatasetError(
            f"{place}: label {label!r} has label_id {_short(label_id)}{meant}; "
            f"in the official order it is {_IDS[label]}. One of the two is wrong"
        )
    return Event(label, float(segment[0]), float(segment[1]))


def _member(place: str, record: Any, key: str) -> Any:
    if not isinstance(record, dict) or key not in record:
        raise DatasetError(f"{place}: wanted an object with {key!r}, but found {_short(record)}")
    return record[key]


def _short(thing: Any) -> str:
    text = repr(thing)
    return text if len(text) <= 100 else f"{text[:100]}..."


def _findings(clips: Sequence[Clip]) -> list[Finding]:
    """What is odd about events, and how many seconds they cover, split by split."""
    empty = [clip.video_id for clip in clips if not clip.events]
    several = [clip.video_id for clip in clips if len(clip.labels) > 1]
    overlapping, touching = _neighbours(clips)
    brief = [_shown(clip, event) for clip in clips for event in clip.events or () if event.offset - event.onset < 1]
    events = Counter(clip.split for clip in clips for _ in clip.events or ())
    kinds = (
        ("no-events", empty, "videos without any event; no class is among their weak labels"),
        ("overlapping-events", overlapping, "pairs of overlapping events of one class; unioned"),
        ("touching-events", touching, "pairs of events of one class that meet; unioned into one"),
        ("short-event", brief, "events shorter than a second; each covers every second that it touches"),
        ("several-classes", several, "videos with events of more than one class"),
    )
    found = [Finding(code, len(rows), text, tuple(rows[:5])) for code, rows, text in kinds if rows]
    return found + [
        Finding(f"{split}-events", events[split], f"in {sum(clip.seconds for clip in clips if clip.split == split)} s")
        for split in SUBSETS.values()
        if events[split]
    ]


def _neighbours(clips: Sequence[Clip]) -> tuple[list[str], list[str]]:
    """Events that begin before the event of their clip and class before them has ended, and such as begin then."""
    overlapping: list[str] = []
    touching: list[str] = []
    for clip in clips:
        ordered = sorted(clip.events or (), key=lambda event: (event.label, event.onset, event.offset))
        for _, group in groupby(ordered, key=lambda event: event.label):
            for one, other in pairwise(group):
                if other.onset <= one.offset:
                    kind = touching if other.onset == one.offset else overlapping
                    kind.append(f"{_shown(clip, one)} and {other.onset},{other.offset}")
    return overlapping, touching


def _shown(clip: Clip, event: Event) -> str:
    return f"{clip.video_id} {event.onset},{event.offset} {event.label}"
