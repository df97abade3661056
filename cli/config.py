"""The commands about a run's file: write one to start from, show it settled, print its schema."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from avvp_pipe.cli.console import Console, guarded, say
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, StorePath, Verbose
from avvp_pipe.cli.run import Config, OwnStore, Settings

config = typer.Typer(
    name="config",
    help="A whole run as one file: write one to start from, show it settled, print its schema.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@config.command("show")
@guarded
def show_config(
    path: Config,
    settings: Settings = None,
    full: Annotated[bool, typer.Option("--full", help="Also parameters that nobody set, with their defaults.")] = False,
    store: OwnStore = None,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Print a run as it would be run: recipes and seeds unfolded, defaults filled in, every artifact named.

    What is printed is a run's file itself. Example: avvp-pipe config show run.yaml --set store=/mnt/artifacts
    """
    from avvp_pipe.pipeline.run_config import read_config
    from avvp_pipe.pipeline.run_settled import settled_config
    from avvp_pipe.pipeline.tables import dumped

    read = read_config(path, settings or ())
    document = settled_config(read, store=store or read.store or DEFAULT_STORE_PATH, full=full)
    Console(as_json=json).result(document, lambda: say(dumped(document).rstrip()))


@config.command("schema")
@guarded
def show_schema(json: AsJson = False, verbose: Verbose = False) -> None:
    """Print the JSON schema of a run's file: what editors need to complete and to check it.

    Example: avvp-pipe config schema > run.schema.json
    """
    from json import dumps

    from avvp_pipe.pipeline.run_schema import run_schema

    document = run_schema()
    Console(as_json=json).result(document, lambda: say(dumps(document, indent=1)))


@config.command("init")
@guarded
def init_config(
    out: Annotated[Path, typer.Option("--out", help="The file to write; must not be there yet.")] = Path("run.yaml"),
    videos: Annotated[Path | None, typer.Option("--videos", help="Folder of your videos, with folders in it.")] = None,
    weak: Annotated[
        Path | None, typer.Option("--weak", help="CSV: a column with the video (file or id), one with its labels.")
    ] = None,
    seconds: Annotated[int, typer.Option("--seconds", min=1, help="Length of clips, where no column says it.")] = 10,
    teachers: Annotated[
        Literal["real", "tiny"],
        typer.Option(help="CLIP and CLAP of full size, or those in the package, which know rendered videos only."),
    ] = "real",
    demo: Annotated[
        Path | None, typer.Option("--demo", help="The demo's run instead, on videos rendered into this folder's world.")
    ] = None,
    size: Annotated[Literal["tiny", "small", "full"], typer.Option(help="Of the demo.")] = "small",
    seed: Annotated[int, typer.Option(help="Of the demo.")] = 0,
    of_store: Annotated[
        bool, typer.Option("--of-store", help="Instead, all that was asked for in the store, as one run.")
    ] = False,
    store: StorePath = DEFAULT_STORE_PATH,
    json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a run's file to start from: for your own videos, the demo, or what a store has.

    With videos and weak labels a manifest is written beside it, one clip a line. A column `split` (train, val, test)
    and columns `audio_events`, `visual_events` (Dog@2-10;Speech@0-4) are taken over where the CSV has them.

    \b
    Examples:
      avvp-pipe config init --videos videos --weak labels.csv --out run.yaml
      avvp-pipe config init --demo demo --size tiny --out demo.yaml
      avvp-pipe config init --of-store --store artifacts --out again.yaml
    """
    from avvp_pipe.pipeline.run_start import demo_start, own_start, store_start, write_start
    from avvp_pipe.stages.stage import ParameterError

    if (videos is None) != (weak is None):
        raise ParameterError("own videos need both: --videos FOLDER and --weak FILE.csv")
    if [videos is not None, demo is not None, of_store].count(True) != 1:
        raise ParameterError("give --videos with --weak, or --demo FOLDER, or --of-store: one of the three")
    if videos is not None and weak is not None:
        start = own_start(videos, weak, out, seconds=seconds, teachers=teachers, store=store)
    elif demo is not None:
        start = demo_start(demo, size=size, seed=seed)
    else:
        start = store_start(store)
    write_start(out, start)
    document: dict[str, Any] = {"config": str(out), "written": [str(out), *map(str, start.files)]}
    document |= {"notes": list(start.notes), "next": start.commands(out)}

    def shown() -> None:
        say("wrote " + " and ".join(document["written"]))
        for note in start.notes:
            say(f"- {note}")
        say("\n".join(["", "next:", *(f"  {line}" for line in document["next"])]))

    Console(as_json=json).result(document, shown)
