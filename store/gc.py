"""What may be removed from a store, and why everything else stays: a plan first, made of records alone.

Never is something removed that a kept artifact was made of, directly or through others. A plan removes readers before
what they read, so that one that is interrupted leaves no artifact without its inputs.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from avvp_pipe.store.artifact import Artifact
from avvp_pipe.store.errors import StoreError
from avvp_pipe.store.lineage import Reads, inputs_of, reached, resolved, turned
from avvp_pipe.store.places.locks import is_held
from avvp_pipe.store.reference import Reference
from avvp_pipe.store.store import Store

SHOWN_READERS = 20


@dataclass(frozen=True, slots=True)
class Scope:
    """Which artifacts may go."""

    superseded: bool = False
    """Those that nobody tagged, asks for, or reads, and that are not the newest of their name."""
    named: tuple[str, ...] = ()
    """References of artifacts to remove whatever they are, as long as nothing that stays reads them."""
    with_readers: bool = False
    """Whether those made from the named ones go too."""
    keep: int = 1
    """How many of the newest of each name stay when superseded ones go; at least 1."""
    older_than: timedelta | None = None
    """Age below which no superseded artifact goes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes and what stays, with the reasons. Together they name every artifact of the store once."""

    remove: Mapping[Reference, str]
    """In the order of removal: readers before what they read."""
    keep: Mapping[Reference, str]
    bytes: Mapping[Reference, int] = field(default_factory=dict)
    """Size of each artifact that goes."""

    @property
    def freed(self) -> int:
        """Bytes that the removal frees."""
        return sum(self.bytes.values())


def plan_superseded(edges: Reads, roots: Mapping[Reference, str]) -> Plan:
    """Keep `roots` and whatever they were made of; everything else goes.

    `edges`: every artifact of the store -> what it was made of. `roots`: artifact -> why it stays.
    """
    keep = {one: why for one, why in roots.items() if one in edges}
    for one, reader in reached(edges, keep).items():
        if one in edges:
            keep[one] = f"read by {reader}"
    return Plan(_readers_first(edges, {one: "superseded" for one in edges if one not in keep}), keep)


def plan_named(
    edges: Reads, wanted: Collection[Reference], guarded: Mapping[Reference, str], *, with_readers: bool = False
) -> Plan:
    """Remove `wanted`, and everything made from them if `with_readers`.

    `guarded`: artifact -> why it must not go even when it is named. Raises StoreError, naming the readers, where
    something that would stay was made from a wanted one, and where a guarded artifact would go.
    """
    made = {one: via for one, via in reached(turned(edges), wanted).items() if one in edges}
    if made and not with_readers:
        first = ", ".join(str(one) for one in list(made)[:SHOWN_READERS])
        more = f" and {len(made) - SHOWN_READERS} more" if len(made) > SHOWN_READERS else ""
        names = ", ".join(str(one) for one in wanted)
        raise StoreError(f"{names} cannot go: {first}{more} were made from it; --with-readers removes these too")
    doomed = {one: "named" for one in wanted} | {one: f"made from {via}" for one, via in made.items()}
    if held := [f"{one} is {guarded[one]}" for one in doomed if one in guarded]:
        raise StoreError(f"nothing was removed: {'; '.join(held)}; remove the tag or finish the step first")
    return Plan(_readers_first(edges, doomed), {one: "not named" for one in edges if one not in doomed})


def _readers_first(edges: Reads, doomed: Mapping[Reference, str]) -> dict[Reference, str]:
    """`doomed` in an order in which nothing goes before its readers; a forged circle is cut at its first member."""
    readers = turned({one: edges.get(one, ()) for one in doomed})
    order: dict[Reference, str] = {}
    while left := [one for one in doomed if one not in order]:
        free = [one for one in left if all(reader in order or reader == one for reader in readers.get(one, ()))]
        order |= {one: doomed[one] for one in free or left[:1]}
    return order


def plan_removal(store: Store, scope: Scope, *, now: datetime) -> Plan:
    """What a scope would remove from a store. `now`: with a time zone; ages are counted from it.

    Raises ArtifactNotFoundError for a name that is not there, and StoreError where a removal is refused, or where a
    record that would stay is broken, or a build runs, so that nobody can tell what must stay for its sake.
    """
    artifacts = list(store.artifacts())
    edges, broken = _edges(artifacts)
    remove: dict[Reference, str] = {}
    keep = {one: "not in the scope" for one in edges}
    guarded = _guarded(store, edges)
    wanted = tuple(dict.fromkeys(store.get(text).reference for text in scope.named))
    if scope.superseded:
        plan = plan_superseded(edges, _roots(store, artifacts, guarded, scope, now))
        remove, keep = dict(plan.remove), dict(plan.keep)
    if left := [one for one in wanted if one not in remove]:
        rest = {one: read for one, read in edges.items() if one in keep}
        plan = plan_named(rest, left, guarded, with_readers=scope.with_readers)
        remove |= plan.remove
        keep = {one: keep[one] for one in plan.keep}
    if remove and (unknown := [f"{one} ({why})" for one, why in broken.items() if one in keep]):
        raise StoreError(
            f"nothing was removed: {'; '.join(unknown)} cannot be read, so nobody can tell what must stay for its "
            "sake; look at it with `avvp-pipe verify`, or name it to `avvp-pipe gc` to remove it"
        )
    if remove and (building := _unknown_builds(store)):
        raise StoreError(
            f"nothing was removed: {', '.join(map(str, building))} is being built, and was not asked for last, so "
            "nobody can tell what it reads; wait until it is done"
        )
    sizes = {one.reference: one.size_bytes() for one in artifacts if one.reference in remove}
    return Plan(remove, keep, sizes)


def remove(store: Store, plan: Plan) -> None:
    """Remove what a plan names, in its order. What somebody else removed since is passed over."""
    for reference in plan.remove:
        if artifact := store.find(reference):
            store.discard(artifact)


def _edges(artifacts: Iterable[Artifact]) -> tuple[dict[Reference, tuple[Reference, ...]], dict[Reference, str]]:
    """What each artifact was made of, and which cannot tell."""
    inputs: dict[Reference, tuple[Reference, ...]] = {}
    broken: dict[Reference, str] = {}
    for artifact in artifacts:
        try:
            inputs[artifact.reference] = tuple(inputs_of(artifact.provenance, of=artifact.reference).values())
        except StoreError as error:
            inputs[artifact.reference] = ()
            broken[artifact.reference] = str(error)
    return {one: tuple(resolved(read, inputs.keys()) for read in given) for one, given in inputs.items()}, broken


def _guarded(store: Store, known: Collection[Reference]) -> dict[Reference, str]:
    """What stays even when it is named: tagged artifacts, and what a step that is not finished may be reading."""
    found: dict[Reference, str] = {}
    for kind, name in sorted({(one.kind, one.name) for one in known}):
        for tag, key in sorted(store.tags(Reference(kind, name)).items()):
            one = Reference(kind, name, key)
            found[one] = f"{found[one]}, {tag}" if one in found else f"tagged {tag}"
    for asked, request in store.requests():
        if Reference(asked.kind, asked.name, request.key) in known:
            continue
        for text in request.inputs.values():
            for one in known:
                # Which version the step reads is known to it alone, so none of that name goes.
                if _names(text, one):
                    found.setdefault(one, f"wanted by {asked}, which was asked for and is not finished")
    return found


def _unknown_builds(store: Store) -> list[Reference]:
    """Builds that run right now although something else was asked for under their name since."""
    locks = [name.split("/") for name in store.place.names() if name.endswith(".lock") and name.count("/") == 2]
    builds = [
        (Reference(kind, name, lock[1:].partition(".")[0]), f"{kind}/{name}/{lock}") for kind, name, lock in locks
    ]
    asked = {Reference(one.kind, one.name, request.key) for one, request in store.requests()}
    return [one for one, lock in builds if one not in asked and is_held(store.place, lock)]


def _names(text: str, reference: Reference) -> bool:
    """Whether an input, written `name`, `kind/name` or with a version, may mean some version of this name."""
    kind, _, name = text.partition("@")[0].rpartition("/")
    return name == reference.name and kind in ("", reference.kind)


def _roots(
    store: Store, artifacts: Sequence[Artifact], guarded: Mapping[Reference, str], scope: Scope, now: datetime
) -> dict[Reference, str]:
    """Why artifacts stay on their own account when superseded ones go."""
    roots = dict(guarded)
    for asked, request in store.requests():
        roots.setdefault(Reference(asked.kind, asked.name, request.key), "asked for")
    names: dict[tuple[str, str], list[Reference]] = {}
    for artifact in artifacts:  # of one name in the order in which they were finished
        names.setdefault((artifact.kind, artifact.name), []).append(artifact.reference)
    newest = "the newest of its name" if scope.keep == 1 else f"one of the {scope.keep} newest of its name"
    for references in names.values():
        for one in references[-scope.keep :]:
            roots.setdefault(one, newest)
    if scope.older_than is not None:
        for artifact in artifacts:
            finished = store.finished(artifact)
            if not finished:
                roots.setdefault(artifact.reference, "of unknown age")
            elif now - datetime.fromisoformat(finished) < scope.older_than:
                roots.setdefault(artifact.reference, f"younger than {scope.older_than / timedelta(days=1):g} days")
    return roots
