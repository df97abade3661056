"""The commands about teachers and this machine: which weights are here, fetch weights, what is missing."""

from typing import TYPE_CHECKING, Annotated

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say, table
from avvp_pipe.cli.options import AsJson, DryRun, Quiet, Verbose

if TYPE_CHECKING:
    from avvp_pipe.stages.teachers.hub import HubFile

models = typer.Typer(
    name="models",
    help="Weights of the teachers: which are here, and fetch them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@models.command("ls")
@guarded
def list_models(
    everything: Annotated[bool, typer.Option("--all", help="Also all that could be fetched.")] = False,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List teachers, and which of their weights are on this machine.

    Example: avvp-pipe models ls
    """
    from avvp_pipe.cli.show import human_bytes
    from avvp_pipe.stages.teachers.hub import cache_place
    from avvp_pipe.stages.teachers.inventory import inventory

    found = inventory(everything=everything)
    rows = [
        {
            "name": one.name,
            "weights": one.weights,
            "kind": one.kind,
            "bytes": None if one.missing else one.bytes,
            "where": one.where,
            "missing": list(one.missing),
        }
        for one in found
    ]

    def shown() -> None:
        lines = [
            (one.name, one.weights, one.kind, "missing" if one.missing else human_bytes(one.bytes), one.where)
            for one in found
        ]
        table("", ("name", "weights", "kind", "size", "where"), lines, left=5)

    Console(as_json=json).result({"cache": str(cache_place()), "models": rows}, shown)


@models.command("fetch")
@guarded
def fetch_model(
    names: Annotated[
        list[str] | None, typer.Argument(help="Teachers; left out: those that `extract` uses.", show_default=False)
    ] = None,
    weights: Annotated[str, typer.Option("--weights", help="Tag of one teacher's weights; left out: its own.")] = "",
    dry_run: DryRun = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Bring weights and tokenizers into the Hugging Face cache. The only command that goes to the hub.

    Example: avvp-pipe models fetch
    """
    from avvp_pipe.stages.teachers.hub import refuse_offline
    from avvp_pipe.stages.teachers.inventory import DEFAULTS, wanted_files

    if weights and len(names or ()) != 1:
        raise ValueError(f"--weights {weights} is for one teacher, but {len(names or ())} were named; name one")
    chosen = names or [name for name, _ in DEFAULTS]
    console = Console(as_json=json, quiet=quiet)
    wanted = [one for name in chosen for one in wanted_files(name, weights)]
    if not dry_run:
        refuse_offline(wanted)
    files = [_brought(one, dry_run=dry_run, console=console) for one in wanted]

    def shown() -> None:
        for file in files:
            say(f"{file['state']:8} {file['file']} of {file['repo']}  {file['path']}".rstrip())
        if not files:
            place = "in files of your own" if weights else "part of the package"
            say(f"{', '.join(chosen)}: {place}, there is nothing to fetch")

    console.result({"names": chosen, "weights": weights, "files": files}, shown)


def _brought(wanted: "HubFile", *, dry_run: bool, console: Console) -> dict[str, str]:
    """What became, or would become, of one file."""
    from avvp_pipe.stages.teachers.hub import fetch

    path, state = wanted.cached(), "cached"
    if path is None and wanted.known_absent():
        state = "none"
    elif path is None and dry_run:
        state = "missing"
    elif path is None:
        console.note(f"fetching {wanted}")
        path = fetch(wanted, quiet=console.quiet)
        state = "fetched" if path else "none"
    file = path.name if path else wanted.names[0]
    return {"repo": wanted.repo, "file": file, "state": state, "path": str(path or "")}


@guarded
def doctor(json: AsJson = False, verbose: Verbose = False) -> None:
    """Look this machine over: packages, devices, weights, folders; what is missing and the command that mends it.

    Exits with 1 where something is missing that `extract` with its defaults needs. Example: avvp-pipe doctor
    """
    from avvp_pipe.pipeline.doctor import examine

    checks = examine()
    document = {
        "ok": all(one.ok or not one.needed for one in checks),
        "checks": [{"name": one.name, "state": one.state, "found": one.found, "mend": one.mend} for one in checks],
    }

    def shown() -> None:
        for one in checks:
            say(f"{one.state:8} {one.name}: {one.found}")
            if not one.ok and one.mend:
                say(f"         mend: {one.mend}")

    Console(as_json=json).result(document, shown)
    if not document["ok"]:
        raise typer.Exit(FOUND_WRONG)
