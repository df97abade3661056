"""Where the commands of the pages can be typed: the files that they name, about the demo's rendered videos.

Videos and seconds are the demo's, in the forms of LLP, UnAV-100 and AVE: each rendered class takes the place of one of
the set's own. Features, labels and checkpoints that others are said to have made are drawn numbers in their shapes.
"""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from avvp_pipe.stages.datasets import ave, llp, unav
from tests.checkpoint_files import saved
from tests.released_shapes import generator_shapes, random_state, valor_shapes
from tests.trees import numbers, save, uwav_labels, uwav_tree

Row = Mapping[str, Any]
"""A line of a manifest."""
CLASSIC = {"vggish": (10, 128), "res152": (80, 2048), "r2plus1d_18": (10, 512)}
"""Folder -> shape of a clip's features."""


def make_world(folder: Path, rendered: Path) -> None:
    """Fill a folder. rendered: what `avvp-pipe render --size tiny` left."""
    target, other = (_rows(rendered / f"{name}.jsonl") for name in ("target", "pretrain"))
    _videos(folder / "videos", rendered, {f"{row['id']}.mp4": row for row in target})
    _videos(folder / "llp-videos", rendered, {f"{row['id']}.mp4": row for row in target})
    _videos(folder / "unav-videos", rendered, {f"{_stem(row)}.mp4": row for row in other})
    _videos(folder / "ave-videos", rendered, {f"{_stem(row)}.mp4": row for row in target})
    (folder / "holiday.mp4").symlink_to(rendered / target[0]["path"])
    (folder / "clips.jsonl").write_text("".join(json.dumps(row) + "\n" for row in target))
    _others(folder, rendered, target)
    _weak_csv(folder / "labels.csv", target)
    _llp(folder / "annotations", target)
    _llp(folder / "AVVP-ECCV20" / "data", target)
    _unav(folder / unav.FILE, other)
    _ave(folder / "AVE", target)
    stems = [_stem(row) for row in target]
    uwav_tree(folder / "data" / "LLP", dict.fromkeys(stems, 10), texts=len(llp.CLASSES))
    uwav_labels(folder / "run" / "LLP_Dataset", stems, np.ones((len(stems), len(llp.CLASSES)), bool))
    for name, shape in CLASSIC.items():
        for number, stem in enumerate(stems):
            save(folder / "classic" / name / f"{stem}.npy", numbers(*shape, seed=number))


def put_generator(folder: Path) -> None:
    """A `checkpoint_best.pt` of UWAV's generator."""
    saved(folder, random_state(generator_shapes(width=32, ffn=32, layers=1, audio=512, visual=768)))


def put_parser(folder: Path) -> None:
    """A `checkpoint_best.pt` of VALOR's parser."""
    saved(folder, random_state(valor_shapes(width=16, ffn=16, layers=1, audio=128, visual=2048)))


def _rows(manifest: Path) -> list[Row]:
    return [json.loads(line) for line in manifest.read_text().splitlines()]


def _stem(row: Row) -> str:
    """Eleven characters, as YouTube's."""
    return str(row["id"])[:11]


def _videos(folder: Path, rendered: Path, names: Mapping[str, Row]) -> None:
    folder.mkdir(parents=True)
    for name, row in names.items():
        (folder / name).symlink_to(rendered / row["path"])


def _events(row: Row, *names: str) -> list[tuple[str, int, int]]:
    return [tuple(event) for name in names for event in row.get(name, ())]


def _labels(row: Row) -> list[str]:
    """Weak labels: those told, or the classes of the events."""
    return row.get("labels") or sorted({name for name, _, _ in _events(row, "audio_events", "visual_events", "events")})


def _places(rows: Iterable[Row], classes: Sequence[str]) -> dict[str, str]:
    """Rendered class -> the class whose place it takes."""
    return dict(zip(sorted({name for row in rows for name in _labels(row)}), classes, strict=False))


def _weak_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "split", "labels", "audio_events", "visual_events"])
        for row in rows:
            told = (_events(row, f"{one}_events") for one in ("audio", "visual"))
            events = [";".join(f"{name}@{start}-{end}" for name, start, end in each) for each in told]
            table.writerow([f"{row['id']}.mp4", row["split"], ",".join(_labels(row)), *events])


def _others(folder: Path, rendered: Path, rows: Sequence[Row]) -> None:
    """A manifest of other clips with LLP's classes, and a file of these."""
    named = _places(rows, llp.CLASSES)
    with (folder / "others.jsonl").open("w") as file:
        for row in (one for one in rows if one["split"] == "test"):
            events = {
                f"{modality}_events": [
                    (named[name], start, end) for name, start, end in _events(row, f"{modality}_events")
                ]
                for modality in ("audio", "visual")
            }
            labels = [named[name] for name in _labels(row)]
            file.write(json.dumps({**row, "path": f"{rendered}/{row['path']}", "labels": labels, **events}) + "\n")
    (folder / "classes.txt").write_text("\n".join(llp.CLASSES) + "\n")


def _llp(folder: Path, rows: Sequence[Row]) -> None:
    """LLP's six files."""
    named = _places(rows, llp.CLASSES)
    folder.mkdir(parents=True)

    def write(name: str, head: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
        text = ["\t".join(map(str, line)) for line in (head, *lines)]
        (folder / name).write_text("\n".join(text) + "\n")

    weak = {row["id"]: ",".join(named[name] for name in _labels(row)) for row in rows}
    for split, name in llp.SPLIT_FILES.items():
        write(
            name, ("filename", "event_labels"), [(one["id"], weak[one["id"]]) for one in rows if one["split"] == split]
        )
    write(llp.FULL_FILE, ("filename", "event_labels"), list(weak.items()))
    for modality, name in llp.DENSE_FILES.items():
        events = [
            (row["id"], start, end, named[label])
            for row in rows
            for label, start, end in _events(row, f"{modality}_events")
        ]
        write(name, ("filename", "onset", "offset", "event_labels"), events)


def _unav(path: Path, rows: Sequence[Row]) -> None:
    named, subsets = _places(rows, unav.CLASSES), {ours: theirs for theirs, ours in unav.SUBSETS.items()}
    database = {
        _stem(row): {
            "duration": row["seconds"],
            "subset": subsets[row["split"]],
            "annotations": [
                {"segment": [start, end], "label": named[name], "label_id": unav.CLASSES.index(named[name])}
                for name, start, end in _events(row, "events")
            ],
        }
        for row in rows
    }
    path.write_text(json.dumps({"version": "unav100", "database": database}))


def _ave(folder: Path, rows: Sequence[Row]) -> None:
    """One class a clip, heard and seen throughout."""
    named = _places(rows, ave.OFFICIAL)
    folder.mkdir()
    lines = [f"{named[_labels(row)[0]]}&{_stem(row)}&good&0&10\n" for row in rows]
    (folder / "Annotations.txt").write_text("".join(lines))
    for split in ("train", "val", "test"):
        with h5py.File(folder / f"{split}_order.h5", "w") as file:
            file["order"] = [number for number, row in enumerate(rows) if row["split"] == split]
