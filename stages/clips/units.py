"""Units: the few clips that are decoded and embedded at one time, wherever that happens, and put together to shards.

    unit   16 clips, cut at multiples of 16 rows     what is in memory, what a kill costs, what a worker is sent
    shard  whole units, `Stage.shard_rows` clips     what is written to the artifact

Every unit is computed by itself and always from the same clips: results depend neither on what was done before a
kill, nor on which machine did it, nor on which neighbours failed.
"""

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.clips.failures import FailureLimit
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from collections.abc import Generator

    from avvp_pipe.store import Artifact, Builder, Failure

__all__ = ["UNIT_CLIPS", "KeptUnits", "Unit", "build_units", "patched", "redo_mask", "units_of"]

UNIT_CLIPS = 16
_FAILURES = "failures.json"


@dataclass(frozen=True, slots=True)
class Unit:
    """What became of the clips in `rows`."""

    rows: slice
    arrays: Mapping[str, NDArray[Any]]
    """Name -> (rows, …)."""
    failures: "tuple[Failure, ...]" = field(default=())


def units_of(rows: slice) -> list[slice]:
    """The units in a range that begins with one.

    >>> units_of(slice(32, 70))
    [slice(32, 48, None), slice(48, 64, None), slice(64, 70, None)]
    """
    starts = range(rows.start, rows.stop, UNIT_CLIPS)
    return [slice(start, min(start + UNIT_CLIPS, rows.stop)) for start in starts]


Make = Callable[[Sequence[slice]], "Generator[Unit]"]
"""Unit rows in, units out in the same order."""


def build_units(out: "Builder", make: Make, *, limit: FailureLimit, keep: bool) -> None:
    """Have `make` make what is missing, and write it shard by shard.

    keep: keep finished units of an unfinished shard in the scratch folder, so that a kill costs one unit. Raises
    TooManyFailuresError beyond `limit`.
    """
    shards = list(out.pending())
    kept = KeptUnits(out.scratch / "units") if keep else None
    units = [rows for shard in shards for rows in units_of(shard)]
    missing = [rows for rows in units if kept is None or kept.find(rows) is None]
    left = {rows.start for rows in missing}
    failed = len(out.failures)
    written: slice | None = None
    with closing(make(missing)) as made:
        for shard in shards:
            found: list[Unit] = []
            for rows in units_of(shard):
                unit = next(made) if rows.start in left else (kept.find(rows) if kept else None)
                assert unit is not None, f"the unit of {rows} was kept and is gone"
                assert unit.rows == rows, f"the unit of {unit.rows} came where {rows} was due"
                failed += len(unit.failures)
                if kept and rows.start in left:
                    kept.keep(unit)
                limit.check(failed, unit.failures)
                found.append(unit)
            out.write(shard, _stacked(found), failures=[failure for unit in found for failure in unit.failures])
            if kept and written:
                kept.drop(written)  # only now: a shard is whole on the disk when the next one was written
            written = shard


def _stacked(units: Sequence[Unit]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([unit.arrays[name] for unit in units]) for name in units[0].arrays}


def patched(unit: Unit, redone: NDArray[np.bool_], previous: "Artifact") -> Unit:
    """The unit with the rows that were not `redone` (rows,) taken from an earlier artifact of the same clips."""
    if redone.all():
        return unit
    arrays = {}
    for name, array in unit.arrays.items():
        arrays[name] = previous.rows(name, unit.rows).copy()
        arrays[name][redone] = array[redone]
    return Unit(unit.rows, arrays, unit.failures)


def redo_mask(previous: "Artifact | None", digests: Sequence[str]) -> NDArray[np.bool_]:
    """(N,) which clips must be done: all, or, with an earlier artifact, those that failed or whose file changed."""
    if previous is None:
        return np.ones(len(digests), np.bool_)
    same = np.array(previous.strings("video_digests"), dtype=str) == np.array(digests, dtype=str)
    redo: NDArray[np.bool_] = ~(same & (previous.array("status") == Status.OK))
    return redo


class KeptUnits:
    """Finished units in a folder, one file each: arrays and failures, nothing pickled."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made if need be."""
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def _file(self, rows: slice) -> Path:
        return self._folder / f"{rows.start:09d}.npz"

    def find(self, rows: slice) -> Unit | None:
        """The unit, or None where it is not there whole (a torn file is made again)."""
        from avvp_pipe.store import Failure

        try:
            with zipfile.ZipFile(self._file(rows)) as archive:
                told = json.loads(archive.read(_FAILURES))
            with np.load(self._file(rows), allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files if name != _FAILURES}
            failures = tuple(Failure(**one) for one in told)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None
        whole = arrays and all(len(array) == rows.stop - rows.start for array in arrays.values())
        return Unit(rows, arrays, failures) if whole else None

    def keep(self, unit: Unit) -> None:
        """Write the unit, whole or not at all."""
        partial = self._file(unit.rows).with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez(file, **unit.arrays)
        with zipfile.ZipFile(partial, "a") as archive:
            archive.writestr(_FAILURES, json.dumps([asdict(failure) for failure in unit.failures]))
        partial.replace(self._file(unit.rows))

    def drop(self, rows: slice) -> None:
        """Forget the units in these rows."""
        for unit in units_of(rows):
            self._file(unit).unlink(missing_ok=True)
