"""Hard labels as two tables in the style of LLP's dense annotation files.

`AVVP_eval_audio.csv` and `AVVP_eval_visual.csv` (YapengTian/AVVP-ECCV20): columns filename, onset, offset and
event_labels, separated by tabs, whole seconds, one class a row; an event covers the seconds onset .. offset - 1.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.layouts.events import runs
from avvp_pipe.store.layouts.export import good_rows

if TYPE_CHECKING:
    from avvp_pipe.store.artifact import Artifact

COLUMNS = ("filename", "onset", "offset", "event_labels")
FILES = {"audio": "AVVP_eval_audio.csv", "visual": "AVVP_eval_visual.csv"}


def llp_tables(artifact: "Artifact") -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of both tables, from an artifact with `audio_hard` and `visual_hard` (N, T, C).

    Every clip that did not fail takes part, whatever its split; a clip without events has no rows, as in LLP's files.
    """
    names, rows, lengths = artifact.strings("video_ids"), good_rows(artifact), artifact.array("lengths")
    classes = list(artifact.attrs["classes"])
    for modality, file in FILES.items():
        hard = artifact.array(f"{modality}_hard")
        grids = [hard[row, : lengths[row]] for row in rows]
        yield file, llp_table([names[row] for row in rows], classes, grids).encode()


def llp_table(video_ids: Sequence[str], classes: Sequence[str], grids: Sequence[NDArray[Any]]) -> str:
    """One table from the hard labels (T, C) bool of each clip; rows by clip, class and time.

    Raises StoreError for an id or a class with a tab, a quote or a line break, which such a table cannot hold.
    """
    for text in (*video_ids, *classes):
        if set(text) & set('\t\r\n"'):
            raise StoreError(f"{text!r} cannot stand in a table separated by tabs; rename it")
    table = io.StringIO(newline="")
    writer = csv.writer(table, delimiter="\t", lineterminator="\n")
    writer.writerow(COLUMNS)
    for video_id, grid in zip(video_ids, grids, strict=True):
        writer.writerows((video_id, run.onset, run.offset, classes[run.column]) for run in runs(grid))
    return table.getvalue()
