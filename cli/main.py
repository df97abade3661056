"""The command line `avvp-pipe`: parse, call one function, print. Nothing heavy is imported before a command runs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from avvp_pipe.cli import history, models, trust
from avvp_pipe.cli.compare import compare
from avvp_pipe.cli.config import config
from avvp_pipe.cli.console import INTERRUPTED, MISUSED, Console, guarded, say
from avvp_pipe.cli.failures import failures
from avvp_pipe.cli.grouped_help import GroupedCommand, GroupedCommands
from avvp_pipe.cli.merge import merge
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, DryRun, Quiet, StorePath, Verbose
from avvp_pipe.cli.overlap import overlap
from avvp_pipe.cli.parse import parse_command
from avvp_pipe.cli.recipes import recipes
from avvp_pipe.cli.report import report
from avvp_pipe.cli.run import run
from avvp_pipe.cli.stage_command import stage_command
from avvp_pipe.pipeline.catalogue import STAGES

app = typer.Typer(
    name="avvp-pipe",
    cls=GroupedCommands,
    help="Segment-level pseudo-labels for audio-visual video parsing: decode, extract, label, train, score.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"avvp-pipe {version('avvp-pipe')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Segment-level pseudo-labels for audio-visual video parsing: decode, extract, label, train, score."""


for _stage in STAGES.values():
    _made = parse_command if _stage.name == "parse" else stage_command  # which takes videos too
    app.command(name=_stage.name, cls=GroupedCommand, rich_help_panel="Stages")(_made(_stage))


@app.command(rich_help_panel="Store")
@guarded
def ls(
    kind: Annotated[str | None, typer.Argument(help="Show one kind only.")] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the artifacts of a store.

    Example: avvp-pipe ls labels
    """
    from avvp_pipe.cli.show import print_artifacts
    from avvp_pipe.store import KINDS, Store, StoreError

    if kind is not None and kind not in KINDS:
        raise StoreError(f"no artifacts of kind {kind!r}; there are {', '.join(KINDS)}")
    opened = Store(store)
    print_artifacts(opened, [one for one in opened.artifacts() if kind in (None, one.kind)], Console(as_json=json))


@app.command(rich_help_panel="Store")
@guarded
def show(
    reference: Annotated[str, typer.Argument(help="kind/name, kind/name@key, kind/name@tag, or a released zip.")],
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show one artifact: arrays, parameters, inputs, provenance.

    Example: avvp-pipe show labels/llp-uwav
    """
    from avvp_pipe.cli.show import print_artifact
    from avvp_pipe.store import Store
    from avvp_pipe.store.opening import open_artifact

    opened = Store(store)
    print_artifact(opened, open_artifact(reference, opened), Console(as_json=json))


@app.command(rich_help_panel="Store")
@guarded
def status(store: StorePath = DEFAULT_STORE_PATH, json: AsJson = False, verbose: Verbose = False) -> None:
    """Say of every step that was asked for whether it is cached, stale or missing, and why.

    Exits with 1 where something is not cached. Example: avvp-pipe status
    """
    from avvp_pipe.cli.console import FOUND_WRONG
    from avvp_pipe.cli.show import print_conditions
    from avvp_pipe.pipeline.status import conditions, requested_steps
    from avvp_pipe.store import Store

    opened = Store(store)
    found = conditions(opened, requested_steps(opened))
    print_conditions(found, Console(as_json=json))
    if any(one.state != "cached" for one in found):
        raise typer.Exit(FOUND_WRONG)


@app.command(rich_help_panel="Store")
@guarded
def export(
    reference: Annotated[str, typer.Argument(help="kind/name, kind/name@key, kind/name@tag, or a released zip.")],
    layout: Annotated[
        Literal["uwav", "valor", "valor++", "classic", "unav", "llp-csv", "label-studio"],
        typer.Option(help="Whose files to write."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; must not be there yet, or be empty.")],
    ids: Annotated[
        Literal["auto", "whole", "youtube"],
        typer.Option(help="How files are named; auto: as imported, else by the 11 characters of the YouTube id."),
    ] = "auto",
    any_width: Annotated[
        bool, typer.Option("--any-width", help="Write features even if they are not as wide as the released ones.")
    ] = False,
    url: Annotated[
        str, typer.Option(help="Where Label Studio finds a video; {id} and {youtube} are filled in.")
    ] = "/data/local-files/?d={id}.mp4",
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write labels or features as the files that released code, LLP's readers or Label Studio take.

    Exits with 1 where clips are left out because they failed.
    Example: avvp-pipe export labels/llp-uwav --layout uwav --out LLP_Dataset
    """
    from avvp_pipe.cli.export import run_export
    from avvp_pipe.store import Store
    from avvp_pipe.store.opening import open_artifact

    artifact = open_artifact(reference, Store(store))
    run_export(artifact, layout, out, ids=ids, any_width=any_width, url=url, console=Console(as_json=json))


app.add_typer(trust.labels, rich_help_panel="Store")
for _command in (failures, merge, overlap, trust.verify, history.diff, history.lineage, history.tag, history.gc):
    app.command(rich_help_panel="Store")(_command)
for _command in (compare, report):
    app.command(rich_help_panel="Store")(_command)


app.command(rich_help_panel="Whole runs")(run)
app.add_typer(config, rich_help_panel="Whole runs")
app.add_typer(recipes, rich_help_panel="Published labels")


app.add_typer(models.models, rich_help_panel="Machine")
app.command(rich_help_panel="Machine")(models.doctor)


@app.command(rich_help_panel="Try it")
@guarded
def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for videos, artifacts and the table.")],
    size: Annotated[Literal["tiny", "small", "full"], typer.Option(help="How much to render and train.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of the rendered world and of all training.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.PARAMETER=VALUE", help="Change a parameter; repeatable.")
    ] = None,
    dry_run: DryRun = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run everything on rendered video: no weights, no account, no GPU.

    Example: avvp-pipe demo --out demo --size small
    """
    from avvp_pipe.cli.demo import run_and_print

    run_and_print(out, size, seed, settings or [], dry_run=dry_run, console=Console(as_json=json, quiet=quiet))


@app.command(rich_help_panel="Try it")
@guarded
def render(
    out: Annotated[Path, typer.Option("--out", help="Folder for the videos and their manifests.")],
    size: Annotated[Literal["tiny", "small", "full"], typer.Option(help="How many clips.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of everything in the videos.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; 0: as many as there are processors.")] = 0,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Render the demo's videos: mp4 files with events to see and to hear, and their manifests.

    Example: avvp-pipe render --out world --size small
    """
    from avvp_pipe.pipeline.demo import render_videos

    console = Console(as_json=json, quiet=quiet)
    world = render_videos(out, size=size, seed=seed, workers=workers, progress=console)
    document = {"target": str(world.target), "pretrain": str(world.pretrain)}
    console.result(document, lambda: say(f"rendered {world.target} and {world.pretrain}"))


def main() -> None:
    """Entry point of the console script. With --json a wrong command line, too, is told in one document."""
    try:
        sys.exit(app(standalone_mode=False))
    except (KeyboardInterrupt, typer.Abort):  # before or after the command itself, which tells of it better
        if "--json" in sys.argv:
            print(json.dumps({"error": "interrupted"}))
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except MISUSED as error:
        if "--json" in sys.argv:
            print(json.dumps({"error": error.format_message()}))
        error.show()
        sys.exit(error.exit_code)
