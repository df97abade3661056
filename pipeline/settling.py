"""Settled parameters, remembered: filling in a parser's recipe imports torch, which takes longer than all else.

What `settle` makes of a parser's parameters and inputs depends on these and on the code alone, unless it looks at the
machine (a precision other than fp32). So it is kept in a file of the cache, by a digest over the stage, the parameters,
the keys and bytes of the inputs, and the names, sizes and times of the stages' files. Errors are not kept. Other
stages settle in no time, some by files that lie elsewhere: they are not remembered.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from avvp_pipe import stages
from avvp_pipe.stages.stage import Stage
from avvp_pipe.store import Artifact, StoreError, cache_folder

__all__ = ["settled"]

LIMIT = 2000
"""Entries; a memory that is full is begun anew."""
REMEMBERED = ("train-parser", "parse")
"""Stages whose `settle` imports torch and looks at nothing but parameters and inputs."""


def settled(stage: Stage, given: Any, inputs: Mapping[str, Artifact]) -> Any:
    """`stage.settle(given, inputs)`, from the memory where it is there. Raises what `settle` raises."""
    if stage.name not in REMEMBERED or getattr(given, "precision", "fp32") != "fp32":
        return stage.settle(given, inputs)
    mark = _mark(stage, given, inputs)
    known = _Memory.of(cache_folder() / "settled.json")
    if mark is not None and (values := known.get(mark)) is not None:
        return type(given)(**values)
    found = stage.settle(given, inputs)
    if mark is not None:
        known.put(mark, dataclasses.asdict(found))
    return found


def _mark(stage: Stage, given: Any, inputs: Mapping[str, Artifact]) -> str | None:
    """A digest of all that settling depends on; None where an input is damaged, which `settle` may tell of."""
    try:
        read = {role: (str(one.reference), one.digest) for role, one in sorted(inputs.items())}
        facts = [stage.name, stage.version, dataclasses.asdict(given), read, _code()]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    except (StoreError, TypeError, ValueError):
        return None


@cache
def _code() -> list[tuple[str, int, int]]:
    """Name, size and time of every module of the stages."""
    found = []
    for folder in stages.__path__:
        for path in sorted(Path(folder).rglob("*.py")):
            facts = path.stat()
            found.append((str(path), facts.st_size, facts.st_mtime_ns))
    return found


class _Memory:
    """Mark -> settled values, in one JSON file."""

    _open: ClassVar[dict[Path, "_Memory"]] = {}

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        self._known: dict[str, Any] = found if isinstance(found, dict) else {}

    @classmethod
    def of(cls, file: Path) -> "_Memory":
        """The memory in a file, read once."""
        if file not in cls._open:
            cls._open[file] = cls(file)
        return cls._open[file]

    def get(self, mark: str) -> dict[str, Any] | None:
        """What was settled, if it was kept."""
        found = self._known.get(mark)
        return found if isinstance(found, dict) else None

    def put(self, mark: str, values: dict[str, Any]) -> None:
        """Keep it, if it is plain and can be written; it is only a memory."""
        try:
            if json.loads(json.dumps(values)) != values:  # a tuple would come back as a list
                return
        except (TypeError, ValueError):
            return
        self._known = {**(self._known if len(self._known) < LIMIT else {}), mark: values}
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}.tmp")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(self._known), encoding="utf-8")
            part.replace(self._file)
        except OSError:
            part.unlink(missing_ok=True)
