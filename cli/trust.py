"""The commands about trust: look artifacts through, release labels, take released labels in."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, Quiet, StorePath, Verbose

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Store
    from avvp_pipe.store.verify import Finding, Verdict

labels = typer.Typer(
    name="labels",
    help="Release labels as one file, and take released labels in.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@guarded
def verify(
    what: Annotated[
        list[str] | None, typer.Argument(help="References, folders or released zips; left out: the whole store.")
    ] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Look artifacts through: every byte against its digest, checksums, shapes, values, and where they come from.

    Exits with 1 where something is wrong. Example: avvp-pipe verify labels/llp-uwav released.zarr.zip
    """
    from avvp_pipe.store import Store, StoreError
    from avvp_pipe.store.verify import verify_store

    opened, console = Store(store), Console(as_json=json, quiet=quiet)
    wanted = what or [str(artifact.reference) for artifact in opened.artifacts()]
    if not wanted:
        raise StoreError(f"nothing to verify: no artifacts in {opened.root}")
    verdicts = list(console.track(_verdicts(wanted, opened), total=len(wanted), label="verify"))
    beside = [] if what else list(verify_store(opened))
    _print_verdicts(verdicts, beside, console)
    if beside or not all(verdict.is_sound for verdict in verdicts):
        raise typer.Exit(FOUND_WRONG)


def _verdicts(wanted: list[str], store: "Store") -> "Iterator[Verdict]":
    from avvp_pipe.store.opening import open_artifact
    from avvp_pipe.store.release import verify_release
    from avvp_pipe.store.verify import verify as look_through

    for text in wanted:
        path = Path(text)
        if path.suffix == ".zip":
            yield verify_release(path)
        else:
            yield look_through(open_artifact(text, store), None if (path / "zarr.json").is_file() else store)


def _print_verdicts(verdicts: "list[Verdict]", beside: "list[Finding]", console: Console) -> None:
    document = {
        "sound": not beside and all(verdict.is_sound for verdict in verdicts),
        "artifacts": [
            {
                "artifact": verdict.artifact,
                "digest": verdict.digest,
                "files": verdict.files,
                "bytes": verdict.bytes,
                "findings": [{"where": one.where, "message": one.message} for one in verdict.findings],
            }
            for verdict in verdicts
        ],
        "store": [{"where": one.where, "message": one.message} for one in beside],
    }

    def shown() -> None:
        for verdict in verdicts:
            state = "sound" if verdict.is_sound else "WRONG"
            say(f"{state}  {verdict.artifact}  {verdict.files} files  sha256 {verdict.digest[:16] or 'unknown'}")
            for finding in verdict.findings:
                say(f"       {finding.where}: {finding.message}")
        for finding in beside:
            say(f"WRONG  {finding.where}: {finding.message}")

    console.result(document, shown)


@labels.command()
@guarded
def release(
    reference: Annotated[str, typer.Argument(help="labels/name, or labels/name@key.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: something.zarr.zip.")],
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Pack labels, thresholds, prompts, classes and provenance into one zip, with its digest beside it.

    Example: avvp-pipe labels release labels/llp-uwav --out llp-uwav.zarr.zip
    """
    from avvp_pipe.cli.show import human_bytes
    from avvp_pipe.store import Store
    from avvp_pipe.store.release import release as pack

    opened = Store(store)
    made = pack(opened.get(reference, kind="labels"), opened, out)
    document = {"file": str(made.path), "sha256": made.digest, "bytes": made.bytes}
    text = f"{made.path}  {human_bytes(made.bytes)}\nsha256 {made.digest}, also in {made.path.name}.sha256"
    Console(as_json=json).result(document, lambda: say(text))


@labels.command()
@guarded
def adopt(
    file: Annotated[Path, typer.Argument(help="A released .zarr.zip.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call the labels here; else as they were.")] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look released labels through and put them into a store, so that parsers can be trained on them.

    Example: avvp-pipe labels adopt llp-uwav.zarr.zip --name theirs
    """
    from avvp_pipe.store import Store
    from avvp_pipe.store.release import adopt as take_in

    taken = take_in(file, Store(store), name)
    _print_taken(taken, Console(as_json=json))


def _print_taken(artifact: "Artifact", console: Console) -> None:
    document = {"artifact": str(artifact.reference), "path": artifact.location, "digest": artifact.digest}
    console.result(document, lambda: say(f"{artifact.reference}\n{artifact.location}"))
