"""The command of stage `parse`: over features as other stages' commands, or straight over video files; and a table."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say
from avvp_pipe.cli.stage_command import run_stage, stage_command
from avvp_pipe.stages.stage import ParameterError, Stage

if TYPE_CHECKING:
    from avvp_pipe.pipeline.runner import Outcome, Step
    from avvp_pipe.store import Artifact, Store

VIDEOS = "From videos"
Videos = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="VIDEO...", help="Video files, or folders of them.", rich_help_panel="Inputs", show_default=False
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option(
        "--csv",
        help="Also write a table: video_id, second, class, modality, probability, on.",
        rich_help_panel="Output",
    ),
]
Seconds = Annotated[
    int | None,
    typer.Option(
        "--seconds", min=1, max=3600, help="Of each video, from its beginning; all it has.", rich_help_panel=VIDEOS
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="STAGE.PARAMETER=VALUE",
        help="Change a parameter of dataset, extract or parse; repeatable.",
        rich_help_panel=VIDEOS,
    ),
]
EXTRA: dict[str, tuple[Any, inspect._ParameterKind]] = {
    "videos": (Videos, inspect.Parameter.POSITIONAL_OR_KEYWORD),
    "csv": (Csv, inspect.Parameter.KEYWORD_ONLY),
    "seconds": (Seconds, inspect.Parameter.KEYWORD_ONLY),
    "settings": (Settings, inspect.Parameter.KEYWORD_ONLY),
}


@dataclass(frozen=True, slots=True)
class _Run:
    """What was asked for besides inputs and parameters of the stage."""

    name: str | None
    store: str
    dry_run: bool
    force: bool
    videos: list[Path] | None
    csv: Path | None
    seconds: int | None
    settings: list[str] | None


def parse_command(stage: Stage) -> Callable[..., None]:
    """A function for typer: the stage's command, which takes videos too, and writes a table."""
    plain = inspect.signature(stage_command(stage))

    def command(**given: Any) -> None:
        given.pop("verbose")
        console = Console(as_json=given.pop("json"), quiet=given.pop("quiet"))
        run = _Run(**{field.name: given.pop(field.name) for field in fields(_Run)})
        (_parse_videos if run.videos else _parse_features)(stage, given, run, console)

    first, *others = [
        inspect.Parameter(name, kind, default=None, annotation=annotation) for name, (annotation, kind) in EXTRA.items()
    ]
    command.__doc__ = stage_command(stage).__doc__
    command.__name__ = stage.name
    command.__signature__ = inspect.Signature([first, *plain.parameters.values(), *others])  # type: ignore[attr-defined]
    return guarded(command)


def _parse_features(stage: Stage, given: dict[str, Any], run: _Run, console: Console) -> None:
    if given["features"] is None:
        raise ParameterError("parse wants videos to parse, or --features features/NAME; give either")
    if run.seconds is not None or run.settings:
        raise ParameterError("--seconds and --set are for parsing videos; name some, or leave these out")
    if run.csv is None or run.dry_run:
        run_stage(stage, run.name, given, store=run.store, dry_run=run.dry_run, force=run.force, console=console)
        return
    from avvp_pipe.pipeline.names import step_name
    from avvp_pipe.pipeline.runner import Step
    from avvp_pipe.store import Store

    inputs = {role: reference for role in stage.reads if (reference := given.pop(role)) is not None}
    steps = [Step(stage.name, step_name(stage, run.name, given, inputs), given, inputs)]
    _run_steps(Store(run.store), steps, run.csv, console, force=run.force)


def _parse_videos(stage: Stage, given: dict[str, Any], run: _Run, console: Console) -> None:
    from avvp_pipe.cli.show import print_conditions
    from avvp_pipe.pipeline.parse_videos import steps_for
    from avvp_pipe.pipeline.status import conditions
    from avvp_pipe.store import Store

    features, parser = given.pop("features"), given.pop("parser")
    if features is not None:
        raise ParameterError(f"both videos and --features {features} were given; parse them one after the other")
    if parser is None:
        raise ParameterError("parse wants a parser; give one that was trained here as --parser parser/NAME")
    opened = Store(run.store)
    steps = steps_for(
        opened,
        parser,
        run.videos or [],
        name=run.name,
        seconds=run.seconds,
        params=given,
        settings=run.settings or [],
        progress=console,
    )
    if run.dry_run:
        print_conditions(conditions(opened, steps), console)
        return
    _run_steps(opened, steps, run.csv, console, force=run.force)


def _run_steps(store: "Store", steps: "Sequence[Step]", csv: Path | None, console: Console, *, force: bool) -> None:
    """Run steps, the last of which predicts, and write the table. Exits with 1 where clips failed."""
    from avvp_pipe.pipeline.runner import run_step
    from avvp_pipe.store.layouts.predictions_csv import check_table, write_table

    if csv is not None:
        check_table(csv)
    outcomes = []
    for step in steps:
        outcome = run_step(store, step, progress=console, force=force)
        console.note(f"{outcome.state} {outcome.artifact.reference} ({outcome.seconds:.1f} s)")
        outcomes.append(outcome)
    lines = None if csv is None else write_table(outcomes[-1].artifact, csv)
    _print(store, outcomes, csv, lines, console)
    if any(outcome.failures for outcome in outcomes):
        raise typer.Exit(FOUND_WRONG)


def _print(
    store: "Store", outcomes: "Sequence[Outcome]", csv: Path | None, lines: int | None, console: Console
) -> None:
    from avvp_pipe.cli.show import outcome_document, print_failures

    made = outcomes[-1].artifact

    def shown() -> None:
        for outcome in outcomes:
            print_failures(store, outcome)
        say(f"{made.reference}: {_called(made)}")
        if csv is not None:
            say(f"{csv}: {lines} lines")

    table = {} if csv is None else {"csv": str(csv), "lines": lines}
    steps = [outcome_document(outcome) for outcome in outcomes]
    failures = [failure for one in steps for failure in one["failures"]]
    console.result({**steps[-1], "failures": failures, "steps": steps, **table}, shown)


def _called(predictions: "Artifact") -> str:
    """How much was parsed, in words."""
    from avvp_pipe.cli.show import many_clips

    clips = many_clips(int((predictions.array("status") == 1).sum()))
    heard, seen = (int(predictions.array(f"{modality}_hard").sum()) for modality in ("audio", "visual"))
    return f"{clips} parsed, {heard} seconds of classes heard and {seen} seen"
