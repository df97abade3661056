"""The commands that look back: what differs, where it comes from, what it is called, and what may go."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from avvp_pipe.cli.console import FOUND_WRONG, WRONG_USE, Console, guarded, say
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, DryRun, Quiet, StorePath, Verbose

if TYPE_CHECKING:
    from avvp_pipe.store import Reference

ARTIFACT = "kind/name, kind/name@key, kind/name@tag, an artifact's folder, or a released zip."


@guarded
def diff(
    a: Annotated[str, typer.Argument(help=ARTIFACT)],
    b: Annotated[str, typer.Argument(help="The one to hold against it, of the same kind.")],
    other_store: Annotated[
        str | None, typer.Option("--other-store", help="The store that B lives in, where it is another one.")
    ] = None,
    clips: Annotated[int, typer.Option("--clips", min=0, help="How many of the most different clips to list.")] = 10,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Say what differs between two artifacts: parameters, inputs and why, arrays; labels by class and by clip.

    Exits with 1 where they differ; other versions of software alone are no difference. NaN equals NaN. JSON lists
    every class and every clip. Example: avvp-pipe diff labels/llp-uwav@paper labels/llp-uwav
    """
    from avvp_pipe.cli.show_diff import print_comparison
    from avvp_pipe.store import Store
    from avvp_pipe.store.diff import compare
    from avvp_pipe.store.lineage import lineage
    from avvp_pipe.store.opening import open_artifact

    console = Console(as_json=json, quiet=quiet)
    first = Store(store)
    second = first if other_store is None else Store(other_store)
    one, other = open_artifact(a, first), open_artifact(b, second)
    found = compare(
        one,
        other,
        (lineage(first, one), lineage(second, other)),
        watch=lambda names: console.track(names, total=len(names), label="diff"),
    )
    print_comparison(found, console, clips=clips)
    if not found.same:
        raise typer.Exit(FOUND_WRONG)


@guarded
def lineage(
    reference: Annotated[str, typer.Argument(help=ARTIFACT)],
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what an artifact was made of, back to the source files: stages, parameters, digests.

    Exits with 1 where the way back breaks off because an input is in no store and no record.
    Example: avvp-pipe lineage labels/llp-uwav
    """
    from avvp_pipe.cli.show_lineage import print_lineage
    from avvp_pipe.store import Store
    from avvp_pipe.store.lineage import lineage as walk
    from avvp_pipe.store.opening import open_artifact

    first = Store(store)
    found = walk(first, open_artifact(reference, first))
    print_lineage(found, Console(as_json=json))
    if any(node.where == "missing" for node in found.nodes):
        raise typer.Exit(FOUND_WRONG)


@guarded
def tag(
    reference: Annotated[str, typer.Argument(help="kind/name, kind/name@key or kind/name@tag.")],
    name: Annotated[
        str | None, typer.Argument(metavar="TAG", help="Letters, digits and . _ + -; without one the tags are listed.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take the tag away; the artifact stays.")] = False,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Give an artifact a name that stays with it, move or delete that name, or list the tags there are.

    A tagged artifact is not removed by `gc`. Example: avvp-pipe tag labels/llp-uwav paper
    """
    from avvp_pipe.store import Reference, Store, StoreError, parse_reference

    console, first = Console(as_json=json), Store(store)
    asked = parse_reference(reference)
    place = Reference(asked.kind, asked.name)
    tags = first.tags(place)
    if name is None and delete:
        raise StoreError(f"which tag is to go? {place} has {', '.join(sorted(tags)) or 'none'}")
    if name is None:
        if not tags:
            first.get(str(place))  # says so where nothing has that name
        _print_tags(str(place), tags, console)
    elif delete:
        first.untag(place, name)
        taken = {"artifact": f"{place}@{tags[name]}", "deleted": name}
        console.result(taken, lambda: say(f"{place} has no tag {name} any more; it was on {taken['artifact']}"))
    else:
        artifact = first.get(reference)
        first.tag(artifact, name)
        _print_tagged(artifact.reference, name, tags.get(name), console)


def _print_tags(place: str, tags: Mapping[str, str], console: Console) -> None:
    rows = [{"tag": tag, "artifact": f"{place}@{key}"} for tag, key in sorted(tags.items())]

    def shown() -> None:
        if not rows:
            say(f"{place} has no tags")
        for row in rows:
            say(f"{row['tag']:20}{row['artifact']}")

    console.result({"tags": rows}, shown)


def _print_tagged(artifact: "Reference", tag: str, before: str | None, console: Console) -> None:
    """`before`: the key that the tag stood for until now, if any."""
    moved = None if before in (None, artifact.version) else f"{artifact.kind}/{artifact.name}@{before}"

    def shown() -> None:
        say(f"{artifact.kind}/{artifact.name}@{tag} is {artifact}" + (f", moved from {moved}" if moved else ""))

    console.result({"artifact": str(artifact), "tag": tag, "moved_from": moved}, shown)


@guarded
def gc(
    references: Annotated[list[str] | None, typer.Argument(help="Artifacts to remove, whatever they are.")] = None,
    leftovers: Annotated[
        bool, typer.Option("--leftovers", help="Remove what killed builds left and nobody is working on.")
    ] = False,
    superseded: Annotated[
        bool,
        typer.Option("--superseded", help="Remove what is not tagged, asked for, newest of its name, or read by such."),
    ] = False,
    with_readers: Annotated[
        bool, typer.Option("--with-readers", help="With the named artifacts, remove what was made from them.")
    ] = False,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Newest of each name that --superseded leaves. [default: 1]")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", min=0, metavar="DAYS", help="Age that --superseded asks for.")
    ] = None,
    dry_run: DryRun = False,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Remove what nobody needs. Says what there is to remove, and removes nothing, unless told a scope.

    What a kept artifact was made of always stays, so do tagged artifacts and what unfinished steps read.
    Example: avvp-pipe gc --superseded --leftovers --dry-run
    """
    from datetime import timedelta

    from avvp_pipe.cli.collect import collect, print_scopes
    from avvp_pipe.store import Store, StoreError
    from avvp_pipe.store.gc import Scope

    console, first = Console(as_json=json), Store(store)
    if (keep is not None or older_than is not None) and not superseded:
        raise StoreError("--keep and --older-than say which superseded artifacts go; add --superseded")
    if with_readers and not references:
        raise StoreError("--with-readers needs the artifacts whose readers are meant: avvp-pipe gc REF --with-readers")
    if not (references or leftovers or superseded):
        print_scopes(first, console)
        raise typer.Exit(WRONG_USE)
    age = None if older_than is None else timedelta(days=older_than)
    scope = Scope(superseded, tuple(references or ()), with_readers, keep or 1, age)
    collect(first, scope, leftovers=leftovers, dry_run=dry_run, console=console)
