"""The command that makes a whole run from one file."""

from typing import Annotated

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded
from avvp_pipe.cli.options import AsJson, DryRun, Force, Quiet, RetryFailed, Verbose

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="The run's file: .yaml, .yml or .toml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PLACE=VALUE",
        help="Change the file: STAGE.PARAMETER, STEP.PARAMETER, steps.STEP.KEY or store; repeatable.",
    ),
]
OwnStore = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="AVVP_PIPE_STORE",
        help="Folder or s3:// URL of artifacts; left out: the file's, else artifacts.",
        show_default=False,
    ),
]


@guarded
def run(
    config: Config,
    settings: Settings = None,
    store: OwnStore = None,
    dry_run: DryRun = False,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Let a dry run work on a few clips to tell times.")
    ] = True,
    force: Force = False,
    retry_failed: RetryFailed = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Run all steps of a file, skip what is there, and say at the end what was made and where.

    Interrupted, it exits with 130; the same command goes on. Exits with 1 where clips failed.

    \b
    Examples:
      avvp-pipe config init --videos videos --weak labels.csv --out run.yaml
      avvp-pipe run run.yaml --dry-run
      avvp-pipe run run.yaml --set calibrate.mode=class-agnostic
    """
    from avvp_pipe.pipeline.run_config import read_config
    from avvp_pipe.pipeline.run_steps import plan_run
    from avvp_pipe.stages.stage import ParameterError

    if force and retry_failed:
        raise ParameterError("--force builds all clips anew, --retry-failed only those that failed; give one of them")
    read = read_config(config, settings or ())
    planned = plan_run(read)
    opened, console = opened_store(store, read.store), Console(as_json=json, quiet=quiet)
    if dry_run:
        from avvp_pipe.cli.show_run import print_ahead
        from avvp_pipe.pipeline.run import check_start
        from avvp_pipe.pipeline.run_plan import look_ahead

        check_start(opened, planned)
        ahead = look_ahead(opened, planned, progress=console, force=force, retry_failed=retry_failed, measure=measure)
        print_ahead(ahead, config, opened, console)
        return
    from avvp_pipe.cli.show_run import print_run
    from avvp_pipe.pipeline.run import run_planned

    finished = run_planned(opened, planned, progress=console, force=force, retry_failed=retry_failed)
    print_run(finished, config, opened, console)
    if any(outcome.failures for outcome in finished.outcomes):
        raise typer.Exit(FOUND_WRONG)


def opened_store(given: str | None, of_file: str):  # type: ignore[no-untyped-def]  # Store is imported when it is used
    """The store that was asked for: on the command line, in the environment, in the file."""
    from avvp_pipe.store import DEFAULT_STORE, Store

    return Store(given or of_file or DEFAULT_STORE)
