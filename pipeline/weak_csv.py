"""A folder of videos and a table of weak labels, as people have them, read into the clips of a manifest.

    videos/a.mp4, videos/b.mp4      video,labels            Clip("a", "train", "videos/a.mp4", ("Dog", "Speech"))
                                    a.mp4,Dog;Speech    ->
                                    b.mp4,Bell              Clip("b", "train", "videos/b.mp4", ("Bell",))

One line a video, or one line a label. Columns go by the names in COLUMNS; cells of the first are files, paths below
the folder, or ids (a file without its ending). Separators are commas, tabs or semicolons, told from the header.
"""

import csv
import io
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.pipeline.tables import hint
from avvp_pipe.stages.stage import ParameterError

if TYPE_CHECKING:
    from avvp_pipe.stages.datasets.records import Clip

__all__ = ["Weak", "read_weak"]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "video": ("video", "id", "video_id", "file", "filename", "file_name", "path", "name", "clip", "youtube_id"),
    "labels": ("labels", "label", "weak_labels", "weak", "event_labels", "events", "classes", "class", "tags"),
    "split": ("split", "set", "subset", "partition"),
    "seconds": ("seconds", "duration", "length"),
    "audio_events": ("audio_events",),
    "visual_events": ("visual_events",),
}
NEEDED = ("video", "labels")
ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v")
SPLITS: Mapping[str, str] = {"validation": "val", "valid": "val", "dev": "val", "training": "train", "testing": "test"}
BYTES_LIMIT = 2**28


@dataclass(frozen=True, slots=True)
class Weak:
    """What was found."""

    clips: "tuple[Clip, ...]"
    notes: tuple[str, ...]
    """Oddities that nothing was done about, in words."""


def read_weak(table: Path, videos: Path, *, manifest: Path, seconds: int) -> Weak:
    """The clips of a table of weak labels. Their paths start from `manifest`'s folder.

    seconds: of clips whose length no column says. Raises ParameterError naming file, line and remedy.
    """
    if not videos.is_dir():
        raise ParameterError(f"{videos} is not a folder of videos")
    files = _files(videos)
    if not files:
        raise ParameterError(f"{videos} has no video in it; wanted files that end in {', '.join(ENDINGS)}")
    found: dict[str, Clip] = {}
    missing: list[str] = []
    for line, cells in _rows(table):
        clip, there = _clip(cells, files, videos, manifest, seconds, f"{table}, line {line}")
        before = found.get(clip.video_id)
        if before is not None:
            clip = _joined(before, clip, f"{table}, line {line}")
        elif not there:
            missing.append(clip.video_id)
        found[clip.video_id] = clip
    if not found:
        raise ParameterError(f"{table} lists no videos; wanted a header and one line a video")
    if len(missing) == len(found):
        raise ParameterError(
            f"none of the {len(found)} videos of {table} is in {videos}: the first is {missing[0]!r}, and the folder "
            f"has {next(iter(files))}; the column should hold files, or their names without ending"
        )
    used = {os.path.normpath(manifest.parent / clip.path) for clip in found.values()}
    unlisted = sum(os.path.normpath(path) not in used for path in {*files.values()} if path is not None)
    return Weak(tuple(found.values()), tuple(_notes(missing, unlisted)))


def _notes(missing: Sequence[str], unlisted: int) -> Iterator[str]:
    if missing:
        yield f"{len(missing)} listed videos have no file and will fail as missing: {', '.join(missing[:5])}"
    if unlisted:
        yield f"{unlisted} files of the folder have no labels and are left out"


def _files(videos: Path) -> dict[str, Path | None]:
    """Path below the folder, name, and name without ending -> file; None where several are meant."""
    found: dict[str, Path | None] = {}
    every = sorted(one for one in videos.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
    for path in every:
        for name in {path.relative_to(videos).as_posix(), path.name, path.stem}:
            found[name] = None if name in found and found[name] != path else path
    for path in every:  # a whole path is never ambiguous
        found[path.relative_to(videos).as_posix()] = path
    return found


def _rows(table: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells by our names of the columns."""
    if not table.is_file():
        raise ParameterError(f"{table} is not a file; wanted a CSV of weak labels")
    if table.stat().st_size > BYTES_LIMIT:
        raise ParameterError(f"{table} has over {BYTES_LIMIT} bytes; wanted a CSV of weak labels")
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ParameterError(f"{table} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    header = text.partition("\n")[0]
    separator = "\t" if "\t" in header else "," if "," in header else ";"
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        places = _places(next(rows, []), table)
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) <= max(places[name] for name in NEEDED):
                raise ParameterError(f"{table}, line {rows.line_num}: not as many cells as the header has")
            yield rows.line_num, {name: row[place].strip() for name, place in places.items() if place < len(row)}
    except csv.Error as error:
        raise ParameterError(f"{table}, line {rows.line_num}: not CSV ({error})") from None


def _places(header: Sequence[str], table: Path) -> dict[str, int]:
    names = [name.strip().lower().lstrip("#").strip().replace(" ", "_") for name in header]
    found: dict[str, int] = {}
    for ours, theirs in COLUMNS.items():
        place = next((names.index(name) for name in theirs if name in names), None)
        if place is not None and place not in found.values():
            found[ours] = place
    for name in NEEDED:
        if name not in found:
            told = f"wanted a column {name!r} (or {', '.join(COLUMNS[name][1:])})"
            raise ParameterError(f"{table}, line 1: {told}, but the header has {', '.join(header) or 'nothing'}")
    return found


def _clip(
    cells: Mapping[str, str], files: Mapping[str, Path | None], videos: Path, manifest: Path, seconds: int, where: str
) -> "tuple[Clip, bool]":
    """The clip of one line, and whether its file is there."""
    from avvp_pipe.stages.datasets.records import Clip

    video = cells["video"]
    if not video:
        raise ParameterError(f"{where}: the cell of the video is empty")
    if video in files and files[video] is None:
        raise ParameterError(f"{where}: {video!r} is the name of several files; write the path below {videos}")
    path = files.get(video)
    id_ = path.stem if path else Path(video).stem if Path(video).suffix.lower() in ENDINGS else video
    place = path or videos / (video if Path(video).suffix.lower() in ENDINGS else f"{video}.mp4")
    split = cells.get("split", "").lower() or "train"
    split = SPLITS.get(split, split)
    if split not in ("train", "val", "test"):
        raise ParameterError(f"{where}: split {split!r}{hint(split, ('train', 'val', 'test'))}")
    return (
        Clip(
            id_,
            split,
            Path(os.path.relpath(place.absolute(), manifest.parent.absolute())).as_posix(),
            _labels(cells["labels"]),
            _seconds(cells.get("seconds", ""), seconds, where),
            **_events(cells, where),
        ),
        path is not None,
    )


def _labels(cell: str) -> tuple[str, ...]:
    """Between semicolons, bars or commas; in list brackets or not."""
    inner = cell.strip().removeprefix("[").removesuffix("]")
    separator = next((one for one in ";|," if one in inner), None)
    parts = inner.split(separator) if separator else [inner]
    return tuple(dict.fromkeys(part.strip().strip("'\"") for part in parts if part.strip().strip("'\"")))


def _seconds(cell: str, otherwise: int, where: str) -> int:
    if not cell:
        return otherwise
    try:
        return max(1, round(float(cell)))
    except (ValueError, OverflowError):
        raise ParameterError(f"{where}: seconds should be a number, but is {cell!r}") from None


def _events(cells: Mapping[str, str], where: str) -> dict[str, Any]:
    """Of both modalities where the line has any; read as a manifest's cells are."""
    from avvp_pipe.stages.datasets.records import Event

    if not cells.get("audio_events") and not cells.get("visual_events"):
        return {}
    found: dict[str, list[Event]] = defaultdict(list)
    for name in ("audio_events", "visual_events"):
        for cell in (one for one in cells.get(name, "").split(";") if one.strip()):
            label, _, times = cell.strip().rpartition("@")
            onset, _, offset = times.partition("-")
            try:
                found[name].append(Event(label, float(onset), float(offset)))
            except ValueError:
                raise ParameterError(f"{where}: {name} should be Class@onset-offset, but has {cell!r}") from None
    return {name: tuple(found[name]) for name in ("audio_events", "visual_events")}


def _joined(one: "Clip", other: "Clip", where: str) -> "Clip":
    """Two lines of one video: their labels together."""
    if (one.split, one.path, one.audio_events) != (other.split, other.path, other.audio_events):
        raise ParameterError(f"{where}: {one.video_id!r} stands in an earlier line with another split, file or events")
    return replace(one, labels=tuple(dict.fromkeys((*one.labels, *other.labels))))
