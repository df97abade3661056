"""A store: a folder of artifacts, `STORE/<kind>/<name>/<key>/`, each built out of sight and published whole.

Beside the artifacts of a name lie files whose names begin with a dot, which no reader of arrays needs:
`.request.json` (what was last asked for under this name), `.runs/<key>.json` (when, where and how long each
was built) and, while a build runs or after it was killed, `.<key>.partial/` and `.<key>.lock`.
"""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError, StoreWriteError
from avvp_pipe.store.identity import Identity
from avvp_pipe.store.reference import KINDS, Reference, parse_reference

if TYPE_CHECKING:
    from avvp_pipe.store.builder import Builder

DEFAULT_STORE = "artifacts"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for under a name: enough to tell later whether the artifact there is still right."""

    stage: str
    params: Mapping[str, Any]
    """All parameters, those that only change speed or say where files lie included."""
    inputs: Mapping[str, str]
    """Role -> reference, as it was given: without a version it means the newest."""
    key: str


class Store:
    """A local folder of artifacts. Making one touches nothing; the folder appears with the first artifact."""

    def __init__(self, root: Path | str) -> None:
        """`root`: the folder; it need not exist yet."""
        self.root = Path(root)

    def artifacts(self) -> Iterator[Artifact]:
        """Every complete artifact, by kind in the pipeline's order, then by name and age."""
        for kind in KINDS:
            for folder in sorted(_folders(self.root / kind)):
                found = [Artifact(path) for path in _folders(folder)]
                yield from sorted(found, key=lambda artifact: (self.finished(artifact), artifact.key))

    def finished(self, artifact: Artifact) -> str:
        """When the artifact was finished, ISO 8601 in UTC."""
        run = self.run_record(artifact)
        if "finished" in run:
            return str(run["finished"])
        return datetime.fromtimestamp((artifact.path / "zarr.json").stat().st_mtime, UTC).isoformat()

    def run_record(self, artifact: Artifact) -> Mapping[str, Any]:
        """How the build went: finished, seconds, speed parameters. Empty where the record was lost."""
        return _read_json(artifact.path.parent / ".runs" / f"{artifact.key}.json")

    def request(self, reference: Reference) -> Request | None:
        """What was last asked for under this kind and name, or None."""
        record = _read_json(self._folder(reference) / ".request.json")
        return Request(**record) if record else None

    def requests(self) -> Iterator[tuple[Reference, Request]]:
        """Everything that was asked for, in the pipeline's order of kinds."""
        for kind in KINDS:
            for file in sorted((self.root / kind).glob("*/.request.json")):
                reference = Reference(kind, file.parent.name)
                if request := self.request(reference):
                    yield reference, request

    def ask(self, reference: Reference, request: Request) -> None:
        """Record what is asked for under a name."""
        _write_json(self._folder(reference) / ".request.json", asdict(request))

    def find(self, reference: Reference) -> Artifact | None:
        """The complete artifact a reference means, or None.

        Without a version: the one last asked for if it is complete, else the one finished last.
        Raises StoreError where the digits of a version fit several keys.
        """
        found = [Artifact(path) for path in _folders(self._folder(reference))]
        if reference.version:
            fitting = [artifact for artifact in found if artifact.key.startswith(reference.version)]
            if len(fitting) > 1:
                keys = ", ".join(artifact.key for artifact in fitting)
                raise StoreError(f"{reference} fits several artifacts ({keys}); give more digits")
            return fitting[0] if fitting else None
        request = self.request(reference)
        for artifact in found:
            if request and artifact.key == request.key:
                return artifact
        return max(found, key=self.finished, default=None)

    def get(self, text: str, *, kind: str | None = None) -> Artifact:
        """The artifact a written reference means. Raises ArtifactNotFoundError naming what there is."""
        reference = parse_reference(text, kind=kind)
        if artifact := self.find(reference):
            return artifact
        known = [str(artifact.reference) for artifact in self.artifacts() if artifact.kind == reference.kind]
        there = f"of this kind it holds {', '.join(known[-10:])}" if known else "it holds none of this kind"
        raise ArtifactNotFoundError(f"no artifact {reference} in the store {self.root}; {there}")

    @contextmanager
    def build(
        self,
        reference: Reference,
        identity: Identity,
        *,
        shard_rows: int,
        provenance: Callable[["Builder"], Mapping[str, Any]],
        run_facts: Mapping[str, Any],
        waiting: Callable[[], None],
    ) -> Iterator["Builder | None"]:
        """Build `reference`'s artifact of `identity` and publish it when the block ends without an error.

        Yields None where another process finished the same artifact while this one waited. `waiting`
        is called once if somebody else holds the lock; a dead holder's lock is free. `provenance` makes the
        record from the finished builder. Raises StoreWriteError where the store cannot be written.
        """
        from avvp_pipe.store.builder import Builder

        folder = self._folder(reference)
        final, partial = folder / identity.key, folder / f".{identity.key}.partial"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder / f".{identity.key}.lock", waiting):
                if final.is_dir():
                    yield None
                    return
                started = time.monotonic()
                builder = Builder(partial, shard_rows=shard_rows)
                try:
                    yield builder
                except BaseException:
                    if not builder.resumable:
                        shutil.rmtree(partial, ignore_errors=True)
                    raise
                builder.finish({**builder.attributes, "provenance": dict(provenance(builder))})
                run = {
                    "finished": datetime.now(UTC).isoformat(),
                    "seconds": time.monotonic() - started,
                    **run_facts,
                }
                _write_json(folder / ".runs" / f"{identity.key}.json", run)
                _publish(partial, final)
        except OSError as error:
            if self._is_ours(error):
                raise StoreWriteError(f"cannot write {reference} in the store {self.root}: {error}") from error
            raise

    def _is_ours(self, error: OSError) -> bool:
        """Whether the error is about writing this store, and not about some file that a stage was reading."""
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            return True
        return error.filename is not None and str(error.filename).startswith(str(self.root))

    def discard(self, artifact: Artifact) -> None:
        """Remove an artifact, first from sight, then from disk."""
        hidden = artifact.path.parent / f".{artifact.key}.discarded"
        artifact.path.rename(hidden)
        shutil.rmtree(hidden)

    def _folder(self, reference: Reference) -> Path:
        return self.root / reference.kind / reference.name


@contextmanager
def _lock(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _publish(partial: Path, final: Path) -> None:
    """Sync every file, drop what is not part of the artifact, and make it visible in one rename."""
    for hidden in [path for path in partial.iterdir() if path.name.startswith(".")]:
        shutil.rmtree(hidden) if hidden.is_dir() else hidden.unlink()
    for path in sorted(partial.rglob("*")):
        if path.name.endswith(".partial"):
            path.unlink()  # an unfinished write of a killed run
        else:
            _sync(path)
    partial.rename(final)
    _sync(final.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except json.JSONDecodeError as error:
        raise StoreError(f"{path} is not JSON ({error}); delete it and run the step again") from error
    return dict(loaded)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
        temporary.replace(path)
    except OSError as error:
        raise StoreWriteError(f"cannot write {path}: {error}; is the store writable?") from error
