"""What a parser said, as one table: a line for every second, class and modality.

    video_id,second,class,modality,probability,on
    BjCEufrlXm4,0,Speech,audio,0.913402,1

`second` is where it begins, from 0; `on` is 1 where the parser calls the class, 0 where not. Clips that failed have no
lines.
"""

import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.rows import spans
from avvp_pipe.store.status import Status

__all__ = ["COLUMNS", "check_table", "write_table"]

COLUMNS = ("video_id", "second", "class", "modality", "probability", "on")
MODALITIES = ("audio", "visual")
CLIPS_AT_ONCE = 512


def check_table(path: Path) -> None:
    """Raise StoreError where no table can be written there: before anything is computed for it."""
    if path.is_dir():
        raise StoreError(f"--csv {path} is a folder; give the name of a file, such as {path / 'predictions.csv'}")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"--csv {path} would lie in a folder that is not there; make it, or name another file")


def write_table(predictions: Artifact, path: Path) -> int:
    """Write predictions as a CSV file, whole or not at all; what stood there is replaced. Returns the lines of clips.

    Raises StoreError where arrays are missing or damaged, OSError where the file cannot be written.
    """
    check_table(path)
    part, count = path.with_name(f".{path.name}.{os.getpid()}.part"), 0
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(COLUMNS)
            for lines in _clips(predictions):
                out.writerows(lines)
                count += len(lines)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _clips(predictions: Artifact) -> Iterator[Sequence[Sequence[Any]]]:
    """The lines of each clip that did not fail."""
    names, classes = predictions.strings("video_ids"), [str(name) for name in predictions.attrs["classes"]]
    lengths, status = predictions.array("lengths"), predictions.array("status")
    for start, stop in spans(len(names), CLIPS_AT_ONCE):
        rows = slice(start, stop)
        probs, hard = (
            np.stack([predictions.rows(f"{modality}_{what}", rows) for modality in MODALITIES], axis=3)
            for what in ("probs", "hard")
        )  # (B, T, C, 2) each
        for row in np.flatnonzero(status[rows] == Status.OK):
            seconds = lengths[start + row]
            yield [
                (names[start + row], second, classes[index], MODALITIES[which], f"{value:.6f}", int(on))
                for ((second, index, which), value), on in zip(
                    np.ndenumerate(probs[row, :seconds]), hard[row, :seconds].flat, strict=True
                )
            ]
