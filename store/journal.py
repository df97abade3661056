"""The journal of a build: which shards are whole, the digests of their files, and the clips that failed in them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avvp_pipe.store.errors import StoreError

JOURNAL = "journal.jsonl"
SCRATCH = "scratch"
GROUP = "artifact"
"""The folder beside the journal in which the Zarr group grows."""


class Journal:
    """One line a shard, on the disk before `note` returns. A line that a kill cut in two is forgotten."""

    def __init__(self, folder: Path) -> None:
        """`folder`: where the journal lies, or will."""
        self._path = folder / JOURNAL
        self._entries: dict[int, dict[str, Any]] = {}
        if self._path.exists():
            self._read()

    @property
    def done(self) -> set[int]:
        """First rows of the shards that are whole."""
        return set(self._entries)

    @property
    def files(self) -> dict[str, str]:
        """Name -> sha256 of the files of all shards that are whole."""
        return {name: digest for entry in self._entries.values() for name, digest in entry["files"].items()}

    @property
    def failures(self) -> list[dict[str, str]]:
        """Clips that failed, in the order of their rows."""
        return [failure for _, entry in sorted(self._entries.items()) for failure in entry["failures"]]

    def note(self, start: int, files: Mapping[str, str], failures: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Note the shard that starts at row `start` as whole; the entry that was written."""
        entry = {"start": start, "files": dict(files), "failures": [dict(failure) for failure in failures]}
        with self._path.open("a") as journal:
            journal.write(json.dumps(entry) + "\n")
            journal.flush()
            os.fsync(journal.fileno())
        self._entries[start] = entry
        return entry

    def forget(self, is_there: Callable[[str], bool]) -> None:
        """Forget shards of which a file is gone: those of an artifact that was published and removed since."""
        self._entries = {
            start: entry for start, entry in self._entries.items() if all(is_there(name) for name in entry["files"])
        }

    def _read(self) -> None:
        whole = 0
        for line in self._path.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n"):
                break  # the kill came in the middle of this line; its shard is written again
            try:
                entry = json.loads(line)
                members = {"files": dict(entry["files"]), "failures": list(entry["failures"])}
                self._entries[int(entry["start"])] = {**entry, **members}
            except (ValueError, KeyError, TypeError) as error:
                folder = self._path.parent
                raise StoreError(
                    f"{self._path} is damaged ({error}); delete {folder} to build from the start"
                ) from error
            whole += len(line)
        os.truncate(self._path, whole)
