"""LLP: the six official annotation files (YapengTian/AVVP-ECCV20) and what is odd in them.

10,000 train, 649 validation and 1,200 test clips of ten seconds, 25 classes. Weak labels for all; audio and visual
events, annotated separately, for validation and test. Ids are the file names, `<YouTube id>_<start>_<end>`.
Dirty rows are kept out of the labels in the way every released loader does (unknown clips are never asked for, empty
intervals cover nothing), and are listed in the report.
"""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from avvp_pipe.stages.datasets.prompts import VALOR_CLASSES, prompt_sets
from avvp_pipe.stages.datasets.records import Clip, Dataset, DatasetError, Event, Finding, build_dataset
from avvp_pipe.stages.rows import SEPARATE

SOURCE = "the repository YapengTian/AVVP-ECCV20 on GitHub, folder data"
SPLIT_FILES = {"train": "AVVP_train.csv", "val": "AVVP_val_pd.csv", "test": "AVVP_test_pd.csv"}
DENSE_FILES = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}
FULL_FILE = "AVVP_dataset_full.csv"
CLASSES = tuple(one.name for one in VALOR_CLASSES)
"""In the official order of indices."""
SECONDS = 10
YOUTUBE_ID = 11
AUDIO_VERSIONS = {
    "98d8ce2369078d43aa1df26d3ef2894c": "2024, with three rows corrected",
    "a8b6b747e59a4ea2501e51cd717f3b4f": "2020, used by papers before 2024",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a dense annotation file."""

    clip: str
    onset: int
    offset: int
    label: str

    def __str__(self) -> str:
        return f"{self.clip} {self.onset},{self.offset} {self.label}"


def llp_files(folder: Path) -> list[Path]:
    """The six files. Raises FileNotFoundError naming those that are missing and where they come from."""
    files = [folder / name for name in (FULL_FILE, *SPLIT_FILES.values(), *DENSE_FILES.values())]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)} of LLP's six annotation files "
            f"({', '.join(file.name for file in files)}); they are in {SOURCE}"
        )
    return files


def read_llp(folder: Path, *, videos: Path | None = None) -> Dataset:
    """Read the six files. `videos`: folder of `<filename>.mp4` or `<YouTube id>.mp4`.

    Raises FileNotFoundError for missing files, DatasetError for a label outside the 25 classes or a bad line.
    """
    llp_files(folder)
    weak = {split: _weak_rows(folder / name) for split, name in SPLIT_FILES.items()}
    dense = {modality: _dense_rows(folder / name) for modality, name in DENSE_FILES.items()}
    events = {modality: _events_by_clip(rows) for modality, rows in dense.items()}
    clips = [_clip(name, labels, split, events, videos) for split, rows in weak.items() for name, labels in rows]
    of_rows = (*_row_findings(weak, dense), *_version(folder))
    dataset = build_dataset(clips, CLASSES, prompts=prompt_sets(CLASSES))
    report = (*of_rows, *_clip_findings(dataset), *_never_written(weak, dense), *_full_file(folder, weak))
    return replace(dataset, report=report)


def _table(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="ascii", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t")
            header = tuple(rows.fieldnames or ())
            found = [(rows.line_num, row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} is not the ASCII table that LLP has ({error}); fetch it anew from {SOURCE}"
        ) from None
    if header != columns:
        raise DatasetError(f"{path}, line 1: wanted the tab-separated columns {columns}, found {header}")
    for line, row in found:
        if None in row or None in row.values():
            raise DatasetError(f"{path}, line {line}: wanted one cell for each of {columns}")
        if strange := sorted(set(row["event_labels"].split(",")) - set(CLASSES)):
            raise DatasetError(f"{path}, line {line}: unknown class {strange}; LLP has {', '.join(CLASSES)}")
    return found


def _weak_rows(path: Path) -> list[tuple[str, tuple[str, ...]]]:
    return [
        (row["filename"], tuple(row["event_labels"].split(",")))
        for _, row in _table(path, ("filename", "event_labels"))
    ]


def _dense_rows(path: Path) -> list[_Row]:
    found = []
    for line, row in _table(path, ("filename", "onset", "offset", "event_labels")):
        try:
            found.append(_Row(row["filename"], int(row["onset"]), int(row["offset"]), row["event_labels"]))
        except ValueError:
            raise DatasetError(f"{path}, line {line}: onset and offset should be whole seconds") from None
    return found


def _events_by_clip(rows: Sequence[_Row]) -> dict[str, tuple[Event, ...]]:
    events: dict[str, list[Event]] = defaultdict(list)
    for row in rows:
        if row.onset < row.offset:
            events[row.clip].append(Event(row.label, row.onset, row.offset))
    return {clip: tuple(found) for clip, found in events.items()}


def _clip(
    name: str,
    labels: tuple[str, ...],
    split: str,
    events: Mapping[str, Mapping[str, tuple[Event, ...]]],
    videos: Path | None,
) -> Clip:
    dense = split != "train"
    return Clip(
        video_id=name,
        split=split,
        path=_video(name, videos),
        labels=tuple(dict.fromkeys(labels)),
        seconds=SECONDS,
        audio_events=events["audio"].get(name, ()) if dense else None,
        visual_events=events["visual"].get(name, ()) if dense else None,
    )


def _video(name: str, videos: Path | None) -> str:
    if videos is None:
        return f"{name}.mp4"
    whole, short = videos / f"{name}.mp4", videos / f"{name[:YOUTUBE_ID]}.mp4"
    return str((short if short.exists() and not whole.exists() else whole).resolve())


def _row_findings(
    weak: Mapping[str, list[tuple[str, tuple[str, ...]]]], dense: Mapping[str, list[_Row]]
) -> list[Finding]:
    known = {name for rows in weak.values() for name, _ in rows}
    every = [row for rows in dense.values() for row in rows]
    repeated = [name for rows in weak.values() for name, labels in rows if len(set(labels)) < len(labels)]
    doubles = [row for rows in dense.values() for row, count in Counter(rows).items() for _ in range(count - 1)]
    decimal = [name for rows in weak.values() for name, _ in rows if "." in name]
    empty = [str(row) for row in every if row.onset == row.offset]
    backwards = [str(row) for row in every if row.onset > row.offset]
    outside = [str(row) for row in every if min(row.onset, row.offset) < 0 or max(row.onset, row.offset) > SECONDS]
    orphans = sorted({row.clip for row in every} - known)
    return _findings(
        ("zero-length-row", empty, "dense rows that cover nothing; ignored"),
        ("reversed-row", backwards, "dense rows that end before they begin; ignored"),
        ("orphan-clip", orphans, "clips in the dense files that no split has; ignored"),
        ("duplicate-row", [str(row) for row in doubles], "dense rows that stand twice; counted once"),
        ("row-outside-clip", outside, f"dense rows that leave the clip's 0 to {SECONDS} s; cut to it"),
        *_neighbours(dense),
        ("duplicate-weak-label", repeated, "clips whose weak labels name a class twice; counted once"),
        ("decimal-times", decimal, "clips cut at fractions of a second"),
    )


def _neighbours(dense: Mapping[str, list[_Row]]) -> list[tuple[str, list[str], str]]:
    """Rows that overlap the row of the same clip and class before them in time, and rows that touch it."""
    found = []
    for modality, rows in dense.items():
        ordered = sorted(
            (row for row in rows if row.onset < row.offset),
            key=lambda row: (row.clip, row.label, row.onset, row.offset),
        )
        pairs = [(a, b) for a, b in pairwise(ordered) if (a.clip, a.label) == (b.clip, b.label)]
        overlapping = [f"{a} and {b.onset},{b.offset}" for a, b in pairs if b.onset < a.offset]
        touching = [f"{a} and {b.onset},{b.offset}" for a, b in pairs if b.onset == a.offset]
        found += [
            (f"{modality}-overlapping-rows", overlapping, "pairs of overlapping intervals of one class; unioned"),
            (
                f"{modality}-touching-rows",
                touching,
                "pairs of intervals of one class that meet; unioned into one event",
            ),
        ]
    return found


def _clip_findings(dataset: Dataset) -> list[Finding]:
    """What is odd about labelled clips, and how many cells are labelled, split by split."""
    found: list[Finding] = []
    splits = np.array(dataset.splits, dtype=str)
    names = np.array(dataset.video_ids, dtype=str)
    for split in ("val", "test"):
        rows = np.flatnonzero((splits == split) & (dataset.dense == SEPARATE))
        audio, visual, weak = dataset.audio[rows], dataset.visual[rows], dataset.weak[rows]
        heard, seen = audio.any(axis=1), visual.any(axis=1)
        outside = ((heard | seen) & ~weak).any(axis=1)
        found += _findings(
            (f"{split}-nothing-heard", names[rows[~heard.any(axis=1)]].tolist(), "clips without any audio event"),
            (f"{split}-nothing-seen", names[rows[~seen.any(axis=1)]].tolist(), "clips without any visual event"),
            (
                f"{split}-dense-class-not-weak",
                names[rows[outside]].tolist(),
                "clips with an event outside their weak labels",
            ),
        )
        unreachable = (int((audio & ~weak[:, None]).sum()), int((visual & ~weak[:, None]).sum()))
        union, both = int((audio | visual).sum()), int((audio & visual).sum())
        found += [
            Finding(
                f"{split}-cells-outside-weak",
                sum(unreachable),
                f"{unreachable[0]} audio and {unreachable[1]} visual cells",
            ),
            Finding(f"{split}-segment-events", union, f"clip, class and second; {both} in both modalities"),
            Finding(f"{split}-segment-events-one-modality", union - both, "heard but not seen, or seen but not heard"),
        ]
    return found


def _never_written(
    weak: Mapping[str, list[tuple[str, tuple[str, ...]]]], dense: Mapping[str, list[_Row]]
) -> list[Finding]:
    """Labelled clips with a weak label that no dense row has, not even an empty or reversed one."""
    written = {(row.clip, row.label) for rows in dense.values() for row in rows}
    return [
        finding
        for split in ("val", "test")
        for finding in _findings(
            (
                f"{split}-weak-class-not-dense",
                [name for name, labels in weak[split] if any((name, label) not in written for label in labels)],
                "clips with a weak label that no dense row has",
            )
        )
    ]


def _full_file(folder: Path, weak: Mapping[str, list[tuple[str, tuple[str, ...]]]]) -> list[Finding]:
    full = _weak_rows(folder / FULL_FILE)
    if full == [row for rows in weak.values() for row in rows]:
        return []
    return [Finding("full-file-differs", 1, f"{FULL_FILE} is not train, val and test in this order; it is not used")]


def _version(folder: Path) -> list[Finding]:
    # md5 because that is what tells the two versions in circulation apart.
    digest = hashlib.md5((folder / DENSE_FILES["audio"]).read_bytes(), usedforsecurity=False).hexdigest()
    version = AUDIO_VERSIONS.get(digest, "neither the 2020 nor the 2024 version")
    return [Finding("audio-file-version", 1, f"md5 {digest}: {version}")]


def _findings(*kinds: tuple[str, list[str], str]) -> list[Finding]:
    return [Finding(code, len(rows), text, tuple(rows)) for code, rows, text in kinds if rows]
