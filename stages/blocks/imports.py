"""What importing features and importing labels share: digests of the files, and what a person is told about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.digests import DigestMemory, combined_digest
from avvp_pipe.stages.stage import ParameterError, Progress
from avvp_pipe.store import StoreError, cache_folder
from avvp_pipe.store.layouts.npy import read_npy
from avvp_pipe.store.layouts.table import Layout
from avvp_pipe.store.layouts.tree import Facts, Tree, find_tree
from avvp_pipe.store.status import Status

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Failure

ORIGIN = "imported, origin unknown"
SHOWN = 3


def tree_of(source: str, layout: Layout, dataset: "Artifact") -> Tree:
    """The files of the dataset's clips; features, not labels, may be those of several clips of one video.

    Raises ParameterError without a source, StoreError as `find_tree` does.
    """
    if not source:
        raise ParameterError(f"no folder to import from; give the one with the {layout.name} files as --source FOLDER")
    videos = dataset.strings("paths") if layout.kind == "features" else None
    return find_tree(Path(source), layout, dataset.strings("video_ids"), videos=videos)


def tree_digest(tree: Tree) -> str:
    """One digest over the names and bytes of every file that is read."""
    memory = DigestMemory(cache_folder() / "digests.json")
    digest = combined_digest((name, memory.digest(path)) for name, path in tree.every_file())
    memory.save()
    return digest


def tell(tree: Tree, progress: Progress) -> None:
    """Say what was found: where, how files are named, how many clips have all files, what belongs to no clip."""
    complete = tree.complete
    way = "whole ids" if tree.file_ids == "whole" else "YouTube ids (11 characters)"
    progress.note(f"{tree.root}: {complete.sum()} of {len(complete)} clips have all files, named by {way}")
    if tree.shared:
        progress.note(f"{tree.shared} clips have the files of another clip of the same video")
    if tree.unknown:
        progress.note(
            f"{len(tree.unknown)} files belong to no clip of the dataset and are left out: {_some(tree.unknown)}"
        )


def missing(tree: Tree, row: int, video_id: str) -> "Failure":
    """Why a clip has no data: which of its files are not there."""
    from avvp_pipe.store import Failure

    folders = {stream.array: stream.folder or f"*{stream.ending}" for stream in tree.layout.streams}
    absent = [folders[name] for name, paths in tree.files.items() if paths[row] is None]
    return Failure(video_id, Status.MISSING_FILE.code, f"no file of this clip in {', '.join(absent)}")


def status_of(tree: Tree) -> NDArray[np.uint8]:
    """(N,) 1 where a clip has all files, else the code of a missing file."""
    return np.where(tree.complete, np.uint8(Status.OK), np.uint8(Status.MISSING_FILE)).astype(np.uint8)


def origin_of(tree: Tree, facts: Mapping[str, Facts], singles: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Attributes that say where the arrays came from and let an export write the same files again."""
    dtypes = {name: one.dtype.str for name, one in facts.items()} | {n: one.dtype.str for n, one in singles.items()}
    return {
        "origin": ORIGIN,
        "layout": tree.layout.name,
        "file_ids": tree.file_ids,
        "file_dtypes": dtypes,
        "file_orders": {name: "F" if one.fortran else "C" for name, one in facts.items()},
        "file_names": {name: path.relative_to(tree.root).as_posix() for name, path in tree.singles.items()},
    }


def tell_orders(facts: Mapping[str, Facts], progress: Progress) -> None:
    """Say which streams mix C's and Fortran's order: the numbers are kept, an export writes all in C's."""
    for name, one in facts.items():
        if one.fortran is None:
            progress.note(f"{name}: some files are in Fortran's order, some in C's; an export will write all in C's")


def read_clip(path: Path, facts: Facts, row: int) -> NDArray[Any]:
    """The array of one clip's file, which must still be what `scan` saw. Raises StoreError."""
    array = read_npy(path)
    if array.dtype != facts.dtype or array.shape != (facts.rows[row], facts.width):
        raise StoreError(f"{path} was changed while it was imported; run the command again")
    return array


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
