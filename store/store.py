"""A store: a tree of artifacts, `STORE/<kind>/<name>/<key>/`, each built out of sight and published whole.

Beside the artifacts of a name lie files whose names begin with a dot, which no reader of arrays needs:
`.request.json` (what was last asked for under this name), `.tags.json`, `.runs/<key>.json` (when, where and how long
each was built) and, while a build runs or after it was killed, `.<key>.partial/`, `.<key>.lock` and `.<key>.holder`.
"""

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import ArtifactNotFoundError, StoreError, StoreWriteError
from avvp_pipe.store.identity import Identity, canonical_json
from avvp_pipe.store.integrity import METADATA
from avvp_pipe.store.notes import Request, read_note, read_request, write_note
from avvp_pipe.store.places import WritablePlace, is_url, open_place
from avvp_pipe.store.places.folder import Folder
from avvp_pipe.store.reference import KINDS, LATEST, Reference, check_tag, parse_reference

if TYPE_CHECKING:
    from avvp_pipe.store.builder import Builder
    from avvp_pipe.store.leftovers import Leftover
    from avvp_pipe.store.places.locks import Holder
    from avvp_pipe.store.sites import Site

DEFAULT_STORE = "artifacts"


class Store:
    """A folder or a bucket of artifacts. Making one touches nothing; it appears with the first artifact."""

    def __init__(self, root: Path | str) -> None:
        """`root`: a folder, which need not exist yet, or a URL such as `s3://bucket/artifacts`."""
        self.root: Path | str = str(root) if is_url(str(root)) else Path(root)
        self.place: WritablePlace = open_place(self.root)

    def artifacts(self) -> Iterator[Artifact]:
        """Every complete artifact, by kind in the pipeline's order, then by name and age."""
        for kind in KINDS:
            for name in self.place.folders(kind):
                found = self._named(Reference(kind, name))
                yield from sorted(found, key=lambda artifact: (self.finished(artifact), artifact.key))

    def _named(self, reference: Reference) -> list[Artifact]:
        folder = _folder(reference)
        keys = self.place.folders(folder)
        return [
            self._artifact(folder, key) for key in keys if self.place.size(f"{folder}/{key}/{METADATA}") is not None
        ]

    def _artifact(self, folder: str, key: str) -> Artifact:
        kind, _, name = folder.partition("/")
        place = self.place.within(f"{folder}/{key}")
        reference = Reference(kind, name, key)
        if isinstance(place, Folder):
            return Artifact(place, reference)
        from avvp_pipe.store.places.bucket import cached

        return Artifact(cached(place, mark=place.read(METADATA)), reference)

    def finished(self, artifact: Artifact) -> str:
        """When the artifact was finished, ISO 8601 in UTC; "" where the record of its run was lost."""
        return str(self.run_record(artifact).get("finished", ""))

    def run_record(self, artifact: Artifact) -> Mapping[str, Any]:
        """How the build went: finished, seconds, speed parameters. Empty where the record was lost, or is damaged.

        Nothing depends on it, so that listing and cleaning go on; `verify` tells of the damage.
        """
        try:
            return self.run_note(artifact)
        except StoreWriteError:
            raise
        except StoreError:
            return {}

    def run_note(self, artifact: Artifact) -> Mapping[str, Any]:
        """The same. Raises StoreError where it is damaged."""
        return read_note(self.place, f"{_folder(artifact.reference)}/.runs/{artifact.key}.json")

    def request(self, reference: Reference) -> Request | None:
        """What was last asked for under this kind and name, or None."""
        return read_request(self.place, f"{_folder(reference)}/.request.json")

    def requests(self) -> Iterator[tuple[Reference, Request]]:
        """Everything that was asked for, in the pipeline's order of kinds."""
        for kind in KINDS:
            for name in self.place.folders(kind):
                reference = Reference(kind, name)
                if request := self.request(reference):
                    yield reference, request

    def ask(self, reference: Reference, request: Request) -> None:
        """Record what is asked for under a name."""
        write_note(self.place, f"{_folder(reference)}/.request.json", asdict(request))

    def forget(self, reference: Reference) -> None:
        """Forget what was asked for under a name."""
        self.place.remove(f"{_folder(reference)}/.request.json")

    def tags(self, reference: Reference) -> dict[str, str]:
        """Tag -> key, of a kind and name."""
        return {str(tag): str(key) for tag, key in read_note(self.place, f"{_folder(reference)}/.tags.json").items()}

    def tag(self, artifact: Artifact, tag: str) -> None:
        """Let `kind/name@tag` mean this artifact, whatever it meant before. Raises StoreError for unusable tags."""
        tags = {**self.tags(artifact.reference), check_tag(tag): artifact.key}
        write_note(self.place, f"{_folder(artifact.reference)}/.tags.json", tags)

    def untag(self, reference: Reference, tag: str) -> None:
        """Forget a tag. Raises StoreError where there is none such."""
        tags = self.tags(reference)
        if tag not in tags:
            raise StoreError(f"{reference} has no tag {tag!r}; it has {', '.join(sorted(tags)) or 'none'}")
        kept = {other: key for other, key in tags.items() if other != tag}
        write_note(self.place, f"{_folder(reference)}/.tags.json", kept)

    def find(self, reference: Reference) -> Artifact | None:
        """The complete artifact a reference means, or None.

        Without a version: the one last asked for if it is complete, else the one finished last.
        Raises StoreError where the digits of a version fit several keys.
        """
        found = self._named(reference)
        version = reference.version
        if version and version != LATEST:
            version = self.tags(reference).get(version, version)
            fitting = [artifact for artifact in found if artifact.key.startswith(version)]
            if len(fitting) > 1 and fitting[0].key != version:  # they are sorted
                keys = ", ".join(artifact.key for artifact in fitting)
                raise StoreError(f"{reference} fits several artifacts ({keys}); give more digits")
            return fitting[0] if fitting else None
        request = None if version else self.request(reference)
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
        waiting: Callable[["Holder | None"], None],
        renew: bool = False,
        previous: Artifact | None = None,
        begun_with: Mapping[str, Any] | None = None,
    ) -> Iterator["Builder | None"]:
        """Build `reference`'s artifact of `identity` and publish it when the block ends without an error.

        Yields None where another process finished the same artifact while this one waited. `waiting`
        is called once, with who holds the lock, if somebody else does; a dead holder's lock is free. `provenance`
        makes the record from the finished builder. `renew`: build anew what is there already; in a folder the older
        one stays until it is replaced. `previous`: an earlier artifact that the builder may take from, which stays
        until then anywhere. `begun_with`: beside the key, what an unfinished build must have begun with to be gone on
        with. Raises StoreWriteError where the store cannot be written.
        """
        from avvp_pipe.store.builder import Builder

        site = self._site(reference, identity.key, apart=previous is not None and renew)
        with self._written(reference, site), site.lock(waiting):
            if renew:
                site.make_way()
            elif site.is_built():
                site.clear()
                yield None
                return
            if begun_with is not None:
                site.begin(canonical_json(begun_with).encode())
            started = time.monotonic()
            builder = Builder(site.partial, shard_rows=shard_rows, mirror=site.mirror, previous=previous)
            try:
                yield builder
                root = builder.finish({**builder.attributes, "provenance": dict(provenance(builder))})
            except BaseException:
                if not builder.resumable:
                    site.clear()
                raise
            run = {"finished": datetime.now(UTC).isoformat(), "seconds": time.monotonic() - started, **run_facts}
            self._note_run(Reference(reference.kind, reference.name, identity.key), run)
            site.publish(root)

    def take_in(
        self, reference: Reference, files: Iterable[tuple[str, bytes]], *, run_facts: Mapping[str, Any]
    ) -> None:
        """Publish an artifact that was made elsewhere and found to be sound. `reference` with its key.

        files: (name, bytes), the root's metadata among them. Raises StoreWriteError.
        """
        from avvp_pipe.store.journal import GROUP

        site = self._site(reference, reference.version or "")
        with self._written(reference, site), site.lock(lambda holder: None):
            if site.is_built():
                return
            site.clear()
            group, root = Folder(site.partial / GROUP), b""
            try:
                for name, data in files:
                    group.write(name, data)
                    root = data if name == METADATA else root
                if site.mirror:
                    site.mirror.keep([name for name in group.names() if name != METADATA])
            except BaseException:
                site.clear()
                raise
            self._note_run(reference, {"finished": datetime.now(UTC).isoformat(), **run_facts})
            site.publish(root)

    def _note_run(self, reference: Reference, facts: Mapping[str, Any]) -> None:
        write_note(self.place, f"{_folder(reference)}/.runs/{reference.version}.json", facts)

    @contextmanager
    def _written(self, reference: Reference, site: "Site") -> Iterator[None]:
        """Say of errors that are about writing this store what they are about."""
        try:
            yield
        except OSError as error:
            if not self._is_ours(error, site):
                raise
            raise StoreWriteError(
                f"cannot write {reference} in the store {self.root}: {error}; is there space, and may you write "
                "there? What is done is kept: run the same command again to go on"
            ) from error

    def _site(self, reference: Reference, key: str, *, apart: bool = False) -> "Site":
        from avvp_pipe.store.sites import BucketSite, FolderSite

        place = self.place.within(_folder(reference))
        if isinstance(place, Folder):
            return FolderSite(place.path, key)
        from avvp_pipe.store.places.bucket import Bucket, building_folder

        assert isinstance(place, Bucket), place
        return BucketSite(place, key, building_folder(str(self.root)) / _folder(reference), apart)

    def _is_ours(self, error: OSError, site: "Site") -> bool:
        """Whether the error is about writing this store, and not about some file that a stage was reading."""
        if error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EFBIG):
            return True
        return error.filename is not None and str(error.filename).startswith((str(self.root), str(site.partial.parent)))

    def discard(self, artifact: Artifact) -> None:
        """Remove an artifact, first from sight, then from disk."""
        folder = _folder(artifact.reference)
        if isinstance(self.place, Folder):
            hidden = f"{folder}/.{artifact.key}.discarded"
            self.place.remove(hidden)  # of an earlier removal that was interrupted
            (self.place.path / folder / artifact.key).rename(self.place.path / hidden)
            self.place.remove(hidden)
        else:
            self.place.remove(f"{folder}/{artifact.key}/{METADATA}")
            self.place.remove(f"{folder}/{artifact.key}")
        self.place.remove(f"{folder}/.runs/{artifact.key}.json")

    def leftovers(self) -> "tuple[Leftover, ...]":
        """What killed builds left and nobody holds."""
        from avvp_pipe.store.leftovers import find_leftovers

        return find_leftovers(self.place, self.root)

    def clear(self, leftover: "Leftover") -> None:
        """Remove one of them; should a build have begun on it meanwhile, wait, and remove what is left then."""
        from avvp_pipe.store.leftovers import remove_leftover

        remove_leftover(leftover)

    def tidy(self, artifact: Artifact) -> None:
        """Clear the site of a finished artifact, should a kill have come between publishing and clearing."""
        from avvp_pipe.store.places.locks import is_held
        from avvp_pipe.store.sites import lock_name

        site = self._site(artifact.reference, artifact.key)
        lock = f"{_folder(artifact.reference)}/{lock_name(artifact.key)}"
        if site.partial.exists() and not is_held(self.place, lock):
            with site.lock(lambda holder: None):
                site.clear()


def _folder(reference: Reference) -> str:
    return f"{reference.kind}/{reference.name}"
