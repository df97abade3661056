"""Digests of files outside the store, remembered by path, size and time so that big folders are read once."""

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from avvp_pipe.store.integrity import digest_of_file


def combined_digest(parts: Iterable[tuple[str, str]]) -> str:
    """One digest of many named digests, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()


class DigestMemory:
    """File digests kept in one JSON file; an entry holds while path, size, modification time and inode do."""

    def __init__(self, file: Path) -> None:
        """`file` need not exist. One that cannot be read is started anew: it is only a memory."""
        self._file = file
        self._known: dict[str, str] = {}
        self._fresh = False
        try:
            self._known = dict(json.loads(file.read_text()))
        except (OSError, ValueError):
            self._fresh = True

    def digest(self, path: Path) -> str:
        """The digest of `path`, or "missing" where there is no regular file (a pipe would block)."""
        try:
            found = path.stat()
        except (OSError, ValueError):  # ValueError: a name that no file can have
            return "missing"
        if not stat.S_ISREG(found.st_mode):
            return "missing"
        mark = f"{path}|{found.st_size}|{found.st_mtime_ns}|{found.st_ino}"
        if mark not in self._known:
            self._known[mark] = digest_of_file(path)
            self._fresh = True
        return self._known[mark]

    def save(self) -> None:
        """Write the memory, whole or not at all; a store that cannot be written is the builder's to report."""
        if not self._fresh:
            return
        temporary = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(self._known))
            temporary.replace(self._file)
        except OSError:
            temporary.unlink(missing_ok=True)
