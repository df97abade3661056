"""AVE (YapengTian/AVE-ECCV18): 4,143 samples of ten seconds, each with one audio-visual event of one of 28 classes.

| file | says |
|---|---|
| `Annotations.txt` | `category&YouTube id&quality&start&end`, one sample a line; the event covers [start, end) |
| `train_order.h5`, `val_…`, `test_…` | dataset `order`: the rows, from 0, of 3,339, 402 and 402 samples |

The key of a sample is its row: 45 videos have two or three rows, of different classes, which are samples of their
own and may lie in different splits. Ids are therefore `<YouTube id>_<row>`, and all samples of a video have its file,
`<YouTube id>.mp4`, as their path. Samples keep the order of the rows, as the features released with AVE do.

A second outside the event is background: no class. Events are heard and seen at once, so that dense labels are known
only jointly (JOINT): background may well sound, or show, what it does not do both of.

The order of classes is `official`, that of first appearance in the file and of all files of AVE, or `uwav`,
alphabetical, that of the list in UWAV's released code. Labels and lists of the two must not be mixed.
"""

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from avvp_pipe.stages.datasets.ave_order import order_of
from avvp_pipe.stages.datasets.overlap import YOUTUBE_ID
from avvp_pipe.stages.datasets.prompts import prompt_sets
from avvp_pipe.stages.datasets.records import SPLITS, Clip, Dataset, DatasetError, Event, Finding, build_dataset

SOURCE = "the repository YapengTian/AVE-ECCV18 on GitHub, folder data"
ANNOTATIONS = "Annotations.txt"
ORDER_FILES = {split: f"{split}_order.h5" for split in SPLITS}
SECONDS = 10
BYTES_LIMIT = 2**24
"""Of the annotations, which have 0.2 MB."""
OFFICIAL = (
    "Church bell", "Male speech, man speaking", "Bark", "Fixed-wing aircraft, airplane", "Race car, auto racing",
    "Female speech, woman speaking", "Helicopter", "Violin, fiddle", "Flute", "Ukulele", "Frying (food)", "Truck",
    "Shofar", "Motorcycle", "Acoustic guitar", "Train horn", "Clock", "Banjo", "Goat", "Baby cry, infant cry", "Bus",
    "Chainsaw", "Cat", "Horse", "Toilet flush", "Rodents, rats, mice", "Accordion", "Mandolin",
)  # fmt: skip
"""In the order of first appearance; 28 is background."""
ClassOrder = Literal["official", "uwav"]
CLASS_ORDERS: Mapping[ClassOrder, tuple[str, ...]] = MappingProxyType(
    {"official": OFFICIAL, "uwav": tuple(sorted(OFFICIAL))}
)
_HEADER = "Category&VideoID&Quality&StartTime&EndTime"


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the annotations."""

    label: str
    video: str
    quality: str
    onset: int
    offset: int

    def __str__(self) -> str:
        return f"{self.video} {self.onset},{self.offset} {self.label}"


def ave_files(folder: Path) -> list[Path]:
    """The four files. Raises FileNotFoundError naming those that are missing and where they come from."""
    files = [folder / name for name in (ANNOTATIONS, *ORDER_FILES.values())]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FileNotFoundError(
            f"{folder} lacks {', '.join(missing)} of AVE's four files ({', '.join(file.name for file in files)}); "
            f"they are in {SOURCE}"
        )
    return files


def read_ave(folder: Path, *, videos: Path | None = None, class_order: ClassOrder = "official") -> Dataset:
    """Read the four files. `videos`: folder of `<YouTube id>.mp4`.

    Raises FileNotFoundError for missing files, DatasetError for a bad line, for an order that is none, and for splits
    that do not share out all rows.
    """
    ave_files(folder)
    rows = _rows(folder / ANNOTATIONS)
    splits = _splits(folder, len(rows))
    clips = [_clip(index, row, splits[index], videos) for index, row in enumerate(rows)]
    classes = CLASS_ORDERS[class_order]
    return build_dataset(clips, classes, prompts=prompt_sets(classes), report=_findings(rows, splits))


def _rows(path: Path) -> list[_Row]:
    with path.open("rb") as file:
        data = file.read(BYTES_LIMIT + 1)
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not the ASCII text that AVE has ({error}); fetch it anew from {SOURCE}"
        ) from None
    if len(data) > BYTES_LIMIT or not text.strip():
        size = "has no lines" if not text.strip() else f"is larger than {BYTES_LIMIT} bytes"
        raise DatasetError(f"{path} {size}; wanted lines category&YouTube id&quality&start&end, as in {SOURCE}")
    lines = text.rstrip().splitlines()
    first = 2 if lines[0].strip() == _HEADER else 1  # the copy that comes with the videos has a header
    return [_row(f"{path}, line {line}", cells) for line, cells in enumerate(lines[first - 1 :], start=first)]


def _row(place: str, line: str) -> _Row:
    cells = line.split("&")
    if len(cells) != 5:
        raise DatasetError(f"{place}: wanted category&YouTube id&quality&start&end, found {line[:100]!r}")
    label, video, quality, onset, offset = cells
    if label not in OFFICIAL:
        close = difflib.get_close_matches(label, OFFICIAL, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"AVE has {'; '.join(OFFICIAL)}"
        raise DatasetError(f"{place}: unknown category {label[:100]!r}; {hint}")
    if not YOUTUBE_ID.fullmatch(video):
        raise DatasetError(f"{place}: wanted a YouTube id of 11 letters, digits, - and _, found {video[:100]!r}")
    times = [int(cell) if re.fullmatch(r"\d{1,2}", cell) else -1 for cell in (onset, offset)]
    if not 0 <= times[0] <= times[1] <= SECONDS:
        raise DatasetError(
            f"{place}: start and end should be whole seconds from 0 to {SECONDS}, the end not before the start, "
            f"but are {onset[:100]!r} and {offset[:100]!r}"
        )
    return _Row(label, video, quality, times[0], times[1])


def _splits(folder: Path, rows: int) -> list[str]:
    """The split of each row. Raises DatasetError where one is in none or in several."""
    found: dict[int, str] = {}
    for split, name in ORDER_FILES.items():
        for row in order_of(folder / name, rows=rows):
            if row in found:
                raise DatasetError(
                    f"{folder / name} holds row {row}, which {ORDER_FILES[found[row]]} holds too, or itself twice; "
                    f"splits share no row of {ANNOTATIONS}. Fetch the order files anew from {SOURCE}"
                )
            found[row] = split
    if len(found) < rows:
        lost = next(row for row in range(rows) if row not in found)
        raise DatasetError(
            f"{rows - len(found)} of {rows} rows of {folder / ANNOTATIONS} are in no split, first row {lost} (from 0); "
            f"{', '.join(ORDER_FILES.values())} and {ANNOTATIONS} belong together: fetch them anew from {SOURCE}"
        )
    return [found[row] for row in range(rows)]


def _clip(index: int, row: _Row, split: str, videos: Path | None) -> Clip:
    name = f"{row.video}.mp4"
    return Clip(
        video_id=f"{row.video}_{index}",
        split=split,
        path=str((videos / name).resolve()) if videos else name,
        labels=(row.label,),
        seconds=SECONDS,
        events=(Event(row.label, row.onset, row.offset),) if row.onset < row.offset else (),
    )


def _findings(rows: Sequence[_Row], splits: Sequence[str]) -> list[Finding]:
    """What is odd about rows, and how much of each split is background."""
    where: dict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        where[row.video].append(index)
    several = {video: indices for video, indices in where.items() if len(indices) > 1}
    more = [f"{video}: rows {', '.join(map(str, indices))}" for video, indices in several.items()]
    kinds = [
        (
            "zero-length-row",
            [str(row) for row in rows if row.onset == row.offset],
            "events of no second; all background",
        ),
        ("quality", [f"{row} {row.quality}" for row in rows if row.quality != "good"], "rows not marked good; used"),
        ("video-of-several-rows", more, "videos with several rows, which are samples of their own"),
    ]
    seen = {split: {row.video for row, its in zip(rows, splits, strict=True) if its == split} for split in SPLITS}
    for split in ("val", "test"):
        shared = sorted(seen[split] & seen["train"])
        kinds.append((f"{split}-video-in-train", shared, "videos of it with another row in train"))
    found = [Finding(code, len(names), text, tuple(names)) for code, names, text in kinds if names]
    clips, foreground = Counter(splits), Counter[str]()
    for row, split in zip(rows, splits, strict=True):
        foreground[split] += row.offset - row.onset
    return found + [
        Finding(
            f"{split}-background", SECONDS * clips[split] - foreground[split], f"of {SECONDS * clips[split]} seconds"
        )
        for split in SPLITS
    ]
