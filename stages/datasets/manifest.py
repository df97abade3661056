"""A manifest of your own: CSV or JSON Lines, one clip a line.

| field | CSV | JSONL |
|---|---|---|
| `id` | text, unique | text, unique |
| `path` | from the manifest's folder, or absolute | the same |
| `split` | train, val or test | the same |
| `labels` | `Dog;Speech` | `["Dog", "Speech"]` |
| `seconds` | whole number, 10 where left out | the same |
| `audio_events`, `visual_events` | `Dog@2-10;Speech@0-4` | `[["Dog", 2, 10], ["Speech", 0, 4]]` |
| `events` | heard and seen at once, where only that is known | the same |

`labels` may be left out, or empty, where events are given: they are then the classes of the events.
"""

import csv
import difflib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from avvp_pipe.stages.datasets.prompts import prompt_sets
from avvp_pipe.stages.datasets.records import SPLITS, Clip, Dataset, DatasetError, Event, Finding, build_dataset

FIELDS = ("id", "path", "split", "labels", "seconds", "audio_events", "visual_events", "events")
REQUIRED = ("id", "path", "split")
LINE_LIMIT = 2**20
SECONDS_LIMIT = 3600
DEFAULT_SECONDS = 10


def read_manifest(path: Path, *, classes: Sequence[str] | None = None) -> Dataset:
    """Read a `.csv` or `.jsonl` manifest.

    classes: their order; a label outside them is then an error. Without it the classes are the labels, sorted.
    Raises DatasetError naming file, line and what was wanted; FileNotFoundError where there is no file.
    """
    clips: list[Clip] = []
    seen: dict[str, int] = {}
    for line, record in _records(path):
        try:
            clip = _clip(record, classes)
        except DatasetError as error:
            raise DatasetError(f"{path}, line {line}: {error}") from None
        if clip.video_id in seen:
            raise DatasetError(
                f"{path}, line {line}: id {clip.video_id!r} stands in line {seen[clip.video_id]} too; ids must differ"
            )
        seen[clip.video_id] = line
        clips.append(clip)
    if not clips:
        raise DatasetError(f"{path} lists no clips; wanted one a line with the fields {', '.join(FIELDS)}")
    names = tuple(classes) if classes is not None else tuple(sorted(frozenset().union(*(clip.named for clip in clips))))
    if not names:
        raise DatasetError(f"{path} names no class in any clip; fill in `labels`")
    return build_dataset(clips, names, prompts=prompt_sets(names), report=_report(clips))


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names, one a line, in their order; empty lines do not count. Raises DatasetError for doubles."""
    names = tuple(line.strip() for line in _text(path).splitlines() if line.strip())
    doubles = [name for name, count in Counter(names).items() if count > 1]
    if doubles or not names:
        raise DatasetError(f"{path} should list each class once, but lists {', '.join(doubles) or 'none'}")
    return names


def write_manifest(path: Path, clips: Iterable[Clip]) -> None:
    """Write a `.jsonl` manifest, whole or not at all. Raises DatasetError where the name would not read back."""
    if path.suffix.lower() != ".jsonl":
        raise DatasetError(f"{path} would hold JSON Lines; give it a name that ends in .jsonl")
    text = "".join(json.dumps(_record(clip), ensure_ascii=False) + "\n" for clip in clips)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _record(clip: Clip) -> dict[str, Any]:
    record: dict[str, Any] = {"id": clip.video_id, "path": clip.path, "split": clip.split}
    record |= {"labels": clip.labels, "seconds": clip.seconds}
    for name in ("audio_events", "visual_events", "events"):
        events: tuple[Event, ...] | None = getattr(clip, name)
        if events is not None:
            record[name] = [[event.label, event.onset, event.offset] for event in events]
    return record


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before the first line
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except IsADirectoryError:
        raise DatasetError(f"{path} is a folder; a manifest is a .csv or .jsonl file") from None


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    kind = path.suffix.lower()
    if kind not in (".csv", ".jsonl"):
        raise DatasetError(
            f"{path} is no manifest by its name; wanted .csv or .jsonl, not {path.suffix or 'no ending'!r}"
        )
    text = _text(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > LINE_LIMIT:
            raise DatasetError(f"{path}, line {number} has {len(line)} characters; more than {LINE_LIMIT} is not read")
    yield from _csv_records(path, text) if kind == ".csv" else _jsonl_records(path, text)


def _jsonl_records(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                record = json.loads(line)
                if "\\u" in line:  # half a surrogate pair is JSON, but no text that can be stored
                    json.dumps(record, ensure_ascii=False).encode()
            except (ValueError, RecursionError) as error:
                raise DatasetError(f"{path}, line {number}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise DatasetError(f"{path}, line {number}: wanted an object with fields, not {line[:40]!r}")
            yield number, record


def _csv_records(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, row in _csv_rows(path, text):
        cells: dict[str, Any] = {name: value.strip() for name, value in row.items() if value.strip()}
        for name in ("audio_events", "visual_events", "events"):
            if name in cells:
                cells[name] = [_csv_event(cell) for cell in cells[name].split(";") if cell.strip()]
            elif name in row and name != "events" and ("audio_events" in cells or "visual_events" in cells):
                cells[name] = []
        if "labels" in cells:
            cells["labels"] = [cell.strip() for cell in cells["labels"].split(";") if cell.strip()]
        yield line, cells


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, str]]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        header = Counter(rows.fieldnames or ())
        missing, doubles = [name for name in REQUIRED if name not in header], [*(header - Counter(set(header)))]
        if missing or doubles:
            fault = f"lacks {', '.join(missing)}" if missing else f"has {', '.join(doubles)} twice"
            raise DatasetError(f"{path}, line 1: the header {fault}; fields are {', '.join(FIELDS)}")
        for row in rows:
            if None in row or None in row.values():
                raise DatasetError(f"{path}, line {rows.line_num}: not as many cells as the header has")
            yield rows.line_num, row
    except csv.Error as error:
        raise DatasetError(f"{path}, line {rows.reader.line_num}: not CSV ({error})") from None


def _csv_event(cell: str) -> list[Any]:
    name, _, times = cell.strip().rpartition("@")
    onset, _, offset = times.partition("-")
    try:
        return [name, float(onset), float(offset)]
    except ValueError:
        return [cell]


def _clip(record: Mapping[str, Any], classes: Sequence[str] | None) -> Clip:
    unknown = [name for name in record if name not in FIELDS]
    if unknown:
        raise DatasetError(f"unknown field {unknown[0]!r}; fields are {', '.join(FIELDS)}")
    texts = {name: record.get(name) for name in REQUIRED}
    for name, value in texts.items():
        if not isinstance(value, str) or not value.strip():
            raise DatasetError(f"{name} should be text, but is {value!r}")
    if texts["split"] not in SPLITS:
        raise DatasetError(f"split should be one of {', '.join(SPLITS)}, but is {texts['split']!r}")
    seconds = _seconds(record.get("seconds", DEFAULT_SECONDS))
    dense = {name: _events(name, record.get(name), seconds) for name in ("audio_events", "visual_events", "events")}
    if (dense["audio_events"] is None) != (dense["visual_events"] is None):
        raise DatasetError(
            "audio_events and visual_events are known together; give both, an empty one where nothing is"
        )
    clip = Clip(str(texts["id"]), str(texts["split"]), str(texts["path"]), _labels(record, dense), seconds, **dense)
    for label in sorted(clip.named):
        _check_class(label, classes)
    return clip


def _seconds(value: Any) -> int:
    try:
        seconds = int(str(value))
    except ValueError:
        seconds = 0
    if not 1 <= seconds <= SECONDS_LIMIT:
        raise DatasetError(f"seconds should be a whole number from 1 to {SECONDS_LIMIT}, but is {value!r}")
    return seconds


def _events(name: str, value: Any, seconds: int) -> tuple[Event, ...] | None:
    if value is None:
        return None
    found = []
    for item in value if isinstance(value, list) else [value]:
        right = isinstance(item, list) and len(item) == 3 and isinstance(item[0], str) and item[0]
        if not right or not all(type(time) in (int, float) for time in item[1:]):
            raise DatasetError(f"{name}: wanted class, onset, offset (CSV: Class@onset-offset), but found {item!r}")
        if not 0 <= item[1] < item[2] <= seconds:
            raise DatasetError(
                f"{name}: {item[0]} from {item[1]} to {item[2]} s does not lie within the clip's 0 to {seconds} s"
            )
        found.append(Event(item[0], float(item[1]), float(item[2])))
    return tuple(found)


def _labels(record: Mapping[str, Any], dense: Mapping[str, tuple[Event, ...] | None]) -> tuple[str, ...]:
    given = record.get("labels")
    if given is None or (given == [] and any(dense.values())):
        return tuple(sorted({event.label for events in dense.values() for event in events or ()}))
    if not isinstance(given, list) or not all(isinstance(label, str) and label for label in given):
        raise DatasetError(f"labels should be a list of class names, but is {given!r}")
    return tuple(dict.fromkeys(given))


def _check_class(label: str, classes: Sequence[str] | None) -> None:
    if classes is not None and label not in classes:
        close = difflib.get_close_matches(label, classes, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(classes)}"
        raise DatasetError(f"unknown class {label!r}; {hint}")


def _report(clips: Sequence[Clip]) -> list[Finding]:
    outside = [clip.video_id for clip in clips if clip.happening.difference(clip.labels)]
    unseen = [clip.video_id for clip in clips if clip.dense and set(clip.labels) - clip.happening]
    empty = [clip.video_id for clip in clips if not clip.labels]
    kinds = (
        ("dense-class-not-weak", outside, "clips with an event whose class is not among their weak labels"),
        ("weak-class-not-dense", unseen, "clips with a weak label that no event of theirs has"),
        ("no-labels", empty, "clips without any weak label"),
    )
    return [Finding(code, len(found), text, tuple(found[:5])) for code, found, text in kinds if found]
