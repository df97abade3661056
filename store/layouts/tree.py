"""A tree of strangers' files: where it begins, which file belongs to which clip, and whether the files fit together.

Files are named by the clips' whole ids or by their first 11 characters, the YouTube id; one tree uses one way. A file
named by a YouTube id is that of one clip; what is known of videos (features, not labels) may be that of several clips
which the dataset says are one and the same video, as AVE's doubled rows are.
Nothing outside the named folder is read: links that lead out of it are refused.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.layouts.npy import read_header, read_npy
from avvp_pipe.store.layouts.table import Layout, Single, Stream

FileIds = Literal["whole", "youtube"]
YOUTUBE_ID_LENGTH = 11
ROWS_PER_SECOND = 32
"""A file with more rows than this for each second of its clip is not read; released ones have up to 8."""


@dataclass(frozen=True)
class Tree:
    """The files of one layout for N clips."""

    layout: Layout
    root: Path
    """Where the streams' folders begin."""
    file_ids: FileIds
    files: Mapping[str, tuple[Path | None, ...]]
    """Array of a stream -> N paths, None where there is no file."""
    singles: Mapping[str, Path]
    """Array -> path of the files that are there once."""
    unknown: tuple[str, ...]
    """Files and folders beside the clips' that belong to no clip."""

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """(N,) clips that have every file."""
        return np.array([None not in paths for paths in zip(*self.files.values(), strict=True)], bool)

    def every_file(self) -> Iterable[tuple[str, Path]]:
        """Name below the root, and path, of every file that is read."""
        paths = [path for stream in self.files.values() for path in stream if path is not None]
        each_once = dict.fromkeys((*paths, *self.singles.values()))
        return [(path.relative_to(self.root).as_posix(), path) for path in each_once]

    @property
    def shared(self) -> int:
        """Clips whose files are those of a clip before them, too."""
        first = next(iter(self.files.values()), ())
        return sum(path is not None for path in first) - len({*first} - {None})


@dataclass(frozen=True, slots=True)
class Facts:
    """What all files of one stream have in common."""

    dtype: np.dtype[Any]
    fortran: bool | None
    """Whether they are in Fortran's order; None where some are."""
    rows: NDArray[np.int32]
    """(N,) rows of each clip's file, 0 where there is none."""
    width: int


def short_id(video_id: str) -> str:
    """The YouTube id that a clip's id begins with.

    >>> short_id("-AdF2w3q_Gs_30_40")
    '-AdF2w3q_Gs'
    """
    return video_id[:YOUTUBE_ID_LENGTH]


def find_tree(source: Path, layout: Layout, video_ids: Sequence[str], *, videos: Sequence[str] | None = None) -> Tree:
    """Find the files of N clips below `source`: the folder in which the layout begins, or one named in `layout.below`.

    videos: the path of each clip's video; clips of one path then share a file that is named by their YouTube id.
    Raises StoreError where no or several trees are there, where no file belongs to a clip, where names are ambiguous,
    where a link leads out of `source` and where a required file is missing.
    """
    root = _root(source, layout)
    there = {folder: _entries(source, root / folder) for folder in sorted({one.folder for one in layout.streams})}
    stems = {one.array: _stems(there[one.folder], one.ending) for one in layout.streams}
    file_ids = _file_ids(layout, root, stems, video_ids)
    files = {name: _of_clips(found, video_ids, file_ids, videos) for name, found in stems.items()}
    used = {path for paths in files.values() for path in paths if path is not None}
    unknown = sorted(
        path.relative_to(root).as_posix() for entries in there.values() for path in entries if path not in used
    )
    for path in sorted(used):
        _require_inside(source, path)
    return Tree(layout, root, file_ids, files, _singles(source, root, layout), tuple(unknown))


def find_singles(source: Path, layout: Layout) -> Tree:
    """Find the files that a layout has once, where nothing else of it need be there: no clips, no streams.

    Raises StoreError where no or several folders have them, where one is missing or a link leads out of `source`.
    """
    if not source.is_dir():
        raise StoreError(f"{source} is not a folder; give the one that holds {layout.singles[0].files[0]}")
    names = [name for single in layout.singles for name in single.files]
    roots = [source / below if below else source for below in layout.below]
    fitting = [root for root in roots if any(os.path.lexists(root / name) for name in names)]
    if len(fitting) != 1:
        wanted = ", ".join(single.files[0] for single in layout.singles)
        came = "in " + " and in ".join(map(str, fitting)) if fitting else ", ".join(sorted(os.listdir(source))[:5])
        raise StoreError(f"wanted {wanted} once, in {source} or a usual folder below it; found {came or 'nothing'}")
    return Tree(layout, fitting[0], "whole", {}, _singles(source, fitting[0], layout), ())


def scan(tree: Tree, stream: Stream, lengths: NDArray[Any], *, width: int | None) -> Facts:
    """Read the headers of a stream's files and check that they are of one kind.

    lengths: (N,) seconds of each clip. width: what the second axis must be; None: the same in all files.
    Raises StoreError naming the file, what was wanted and what came, and two files of different dtypes.
    """
    rows = np.zeros(len(lengths), np.int32)
    first, orders = None, set()
    for row, path in enumerate(tree.files[stream.array]):
        if path is None:
            continue
        header = read_header(path)
        wanted = (stream.rows, width if first is None or width is not None else first[1].shape[1])
        _require_shape(path, header.shape, wanted, most=ROWS_PER_SECOND * max(int(lengths[row]), 1))
        first = first or (path, header)
        if header.dtype != first[1].dtype:
            raise StoreError(
                f"{path} is {header.dtype} but {first[0]} is {first[1].dtype}; the files of one stream have one "
                "dtype. Convert them, or import them as two artifacts"
            )
        rows[row] = header.shape[0]
        orders.add(header.fortran)
    if first is None:
        raise StoreError(f"{tree.root / stream.folder} holds no file *{stream.ending} of any clip of the dataset")
    return Facts(first[1].dtype, orders.pop() if len(orders) == 1 else None, rows, first[1].shape[1])


def read_single(tree: Tree, single: Single, classes: int, *, any_width: bool = False) -> NDArray[Any] | None:
    """The array of a file that is there once: (C,) or (C, width); None where it is not there.

    any_width: take a second axis of another length than the released files'. Raises StoreError for another shape.
    """
    path = tree.singles.get(single.array)
    if path is None:
        return None
    array = read_npy(path, finite=single.finite)
    width = array.shape[-1] if any_width and array.ndim == 2 else single.width
    wanted = (classes,) if single.width is None else (classes, width)
    if array.shape != wanted or array.dtype.kind != "f":
        raise StoreError(
            f"{path}: wanted floats of shape {wanted}, one row for each of the dataset's {classes} classes, "
            f"but it holds {array.dtype} of shape {array.shape}"
        )
    return array


def _require_shape(path: Path, shape: tuple[int, ...], wanted: tuple[int | None, int | None], *, most: int) -> None:
    shown = f"({wanted[0] or 'rows'}, {wanted[1] or 'width'})"
    fits = len(shape) == 2 and all(want in (None, came) for want, came in zip(wanted, shape, strict=True))
    if not fits or 0 in shape:
        raise StoreError(f"{path} holds an array of shape {shape}; wanted {shown}. Is this the right layout?")
    if shape[0] > most:
        raise StoreError(f"{path} has {shape[0]} rows; for a clip as long as this one at most {most} are read")


def _root(source: Path, layout: Layout) -> Path:
    if not source.is_dir():
        raise StoreError(f"{source} is not a folder; give the one that holds the files of the layout {layout.name}")
    wanted = [one.folder for one in layout.streams]
    endings = {one.ending for one in layout.streams if not one.folder}
    fitting = [
        root
        for root in (source / below if below else source for below in layout.below)
        if all((root / folder).is_dir() for folder in wanted)
        and all(any(root.glob(f"*{ending}")) for ending in endings)
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise StoreError(f"{source} holds several trees: {', '.join(map(str, fitting))}; name the one to read")
    parts = [one.folder or f"*{one.ending}" for one in layout.streams]
    places = ", ".join(below or "directly" for below in layout.below)
    raise StoreError(
        f"{source} is no tree of the layout {layout.name}: wanted {', '.join(parts)} together, in it {places}; "
        f"it holds {', '.join(sorted(os.listdir(source))[:5]) or 'nothing'}"
    )


def _entries(source: Path, folder: Path) -> list[Path]:
    _require_inside(source, folder, file=False)
    return sorted(folder.iterdir())


def _stems(entries: Iterable[Path], ending: str) -> dict[str, Path]:
    return {path.name[: -len(ending)]: path for path in entries if path.name.endswith(ending)}


def _file_ids(layout: Layout, root: Path, stems: Mapping[str, Mapping[str, Path]], video_ids: Sequence[str]) -> FileIds:
    named = set().union(*stems.values())
    whole = named.intersection(video_ids)
    short = named.intersection(map(short_id, video_ids)) - whole
    if whole and short:
        raise StoreError(
            f"{root} names files in two ways, by whole ids ({min(whole)}) and by YouTube ids ({min(short)}); "
            "a file must belong to one clip, so rename those of one way"
        )
    if not whole and not short:
        raise StoreError(
            f"no file below {root} is named after a clip of the dataset: the layout {layout.name} wants "
            f"<id>{layout.streams[0].ending}, ids look like {video_ids[0] if video_ids else 'nothing'}, "
            f"and there is {', '.join(sorted(named)[:3]) or 'no such file'}"
        )
    return "whole" if whole else "youtube"


def _of_clips(
    found: Mapping[str, Path], video_ids: Sequence[str], file_ids: FileIds, videos: Sequence[str] | None
) -> tuple[Path | None, ...]:
    if file_ids == "whole":
        return tuple(map(found.get, video_ids))
    owner: dict[str, int] = {}
    for row, stem in enumerate(map(short_id, video_ids)):
        first = owner.setdefault(stem, row)
        same = first == row or (videos is not None and videos[first] == videos[row] != "")
        if stem in found and not same:
            raise StoreError(
                f"{found[stem]} belongs to two clips, {video_ids[first]} and {video_ids[row]}; name files by whole ids"
            )
    return tuple(found.get(short_id(video_id)) for video_id in video_ids)


def _singles(source: Path, root: Path, layout: Layout) -> dict[str, Path]:
    found = {}
    for single in layout.singles:
        there = [root / name for name in single.files if os.path.lexists(root / name)]
        if len(there) > 1:
            raise StoreError(f"{there[0]} and {there[1]} are both there; remove the one that does not count")
        if not there and single.required:
            raise StoreError(f"{root / single.files[0]} is missing; the layout {layout.name} has it beside the labels")
        for path in there:
            _require_inside(source, path)
            found[single.array] = path
    return found


def _require_inside(source: Path, path: Path, *, file: bool = True) -> None:
    if not path.resolve().is_relative_to(source.resolve()):
        raise StoreError(f"{path} is a link that leads out of {source}; put the files themselves there")
    if file and not path.is_file():
        raise StoreError(f"{path} is not a regular file; wanted what numpy.save writes")
