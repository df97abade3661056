"""What killed builds left behind: hidden folders, locks, temporary files that no living process holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avvp_pipe.store.integrity import METADATA
from avvp_pipe.store.places import WritablePlace
from avvp_pipe.store.places.folder import Folder
from avvp_pipe.store.places.locks import file_lock, is_held
from avvp_pipe.store.reference import KINDS
from avvp_pipe.store.sites import holder_note, lock_name

__all__ = ["Leftover", "find_leftovers", "remove_leftover"]

WHY = {
    "partial": "a build that was interrupted; the same command would go on with it",
    "lock": "the lock of a process that is gone",
    "holder": "the lock of a process that is gone",
    "discarded": "an artifact whose removal was interrupted",
    "tmp": "a file whose writing was interrupted",
    "unpublished": "files of a build that was interrupted; the same command would go on with them",
}


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file or folder that may go."""

    name: str
    """Within its place."""
    location: str
    bytes: int
    why: str
    place: WritablePlace


def find_leftovers(place: WritablePlace, root: Path | str) -> tuple[Leftover, ...]:
    """Everything in a store, and in this machine's building folder for it, that no living build holds."""
    places = [place]
    if not isinstance(place, Folder):
        from avvp_pipe.store.places.bucket import building_folder

        places.append(Folder(building_folder(str(root))))
    return tuple(found for one in places for found in _in_place(one))


def remove_leftover(leftover: Leftover) -> None:
    """Remove one, while nobody can begin to build on it: in a folder, what belongs to a key goes under its lock."""
    folder, _, key = _artifact_of(leftover.name).rpartition("/")
    if not isinstance(leftover.place, Folder) or leftover.name.endswith(".tmp") or folder.count("/") != 1:
        leftover.place.remove(leftover.name)
        return
    names = leftover.place.path / folder
    with file_lock(names / lock_name(key), holder_note(names, key), lambda holder: None):
        leftover.place.remove(leftover.name)


def _in_place(place: WritablePlace) -> Iterator[Leftover]:
    names = list(place.names())
    whole = {name.rpartition("/")[0] for name in names if name.endswith(f"/{METADATA}")}
    held = {_artifact_of(name) for name in names if name.endswith(".lock") and is_held(place, name)}
    sizes: dict[tuple[str, str], int] = {}
    for name in names:
        found = _leftover_of(name, whole)
        if found and _artifact_of(name) not in held:
            sizes[found] = sizes.get(found, 0) + (place.size(name) or 0)
    for (name, what), size in sorted(sizes.items()):
        yield Leftover(name, f"{place.location}/{name}", size, WHY[what], place)


def _artifact_of(name: str) -> str:
    """kind/name/key of the artifact that a file has to do with.

    >>> _artifact_of("labels/mine/.0123456789ab.partial/journal.jsonl")
    'labels/mine/0123456789ab'
    """
    parts = name.split("/")[:3]
    if parts[-1].startswith("."):
        parts[-1] = parts[-1][1:].partition(".")[0]
    return "/".join(parts)


def _leftover_of(name: str, whole: set[str]) -> tuple[str, str] | None:
    """The leftover that a file belongs to, and of what sort, or None for a file that has its place."""
    parts = name.split("/")
    if name.endswith(".tmp"):
        return name, "tmp"
    if len(parts) < 3 or parts[0] not in KINDS:
        return None
    folder, ending = "/".join(parts[:3]), parts[2].rpartition(".")[2]
    if parts[2].startswith("."):
        return (folder, ending) if ending in ("partial", "lock", "holder", "discarded") else None
    return None if folder in whole else (folder, "unpublished")
