"""One command for each stage, made from its record: inputs, parameters and help cannot drift apart."""

import copy
import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded
from avvp_pipe.cli.grouped_help import examples
from avvp_pipe.cli.options import (
    DEFAULT_STORE_PATH,
    AsJson,
    DryRun,
    Force,
    Quiet,
    RetryFailed,
    Seeds,
    StorePath,
    Verbose,
)
from avvp_pipe.stages.stage import ParameterError, Stage

if TYPE_CHECKING:
    from avvp_pipe.pipeline.runner import Step
    from avvp_pipe.store import Store

Name = Annotated[
    str | None, typer.Option("--name", help="What to call the artifact; made up from the inputs where left out.")
]
BARE = "bare_"
"""Prefix of a parameter that is an input given without its option's name."""
THIS_RUN, OUTPUT = "This run", "Output"
COMMON: dict[str, tuple[str, Any, Any]] = {
    "name": (THIS_RUN, Name, None),
    "store": (THIS_RUN, StorePath, DEFAULT_STORE_PATH),
    "dry_run": (THIS_RUN, DryRun, False),
    "force": (THIS_RUN, Force, False),
    "retry_failed": (THIS_RUN, RetryFailed, False),
    "seeds": (THIS_RUN, Seeds, None),
    "json": (OUTPUT, AsJson, False),
    "verbose": (OUTPUT, Verbose, False),
    "quiet": (OUTPUT, Quiet, False),
}
"""Options that are no parameters of the stage: group, annotation, default."""


def stage_command(stage: Stage) -> Callable[..., None]:
    """A function for typer whose signature holds the stage's inputs, its parameters and the common options."""

    def command(*, name: str | None, store: str, dry_run: bool, force: bool, json: bool, **given: Any) -> None:
        _take_arguments(stage, given)
        run_stage(stage, name, given, store=store, dry_run=dry_run, force=force, console=_console(json, given))

    command.__doc__ = f"{stage.summary}\n\n{examples(stage.example)}"
    command.__name__ = stage.name
    command.__signature__ = inspect.Signature(_signature(stage))  # type: ignore[attr-defined]
    return guarded(command)


def _console(as_json: bool, given: dict[str, Any]) -> Console:
    given.pop("verbose")
    return Console(as_json=as_json, quiet=given.pop("quiet"))


def _take_arguments(stage: Stage, given: dict[str, Any]) -> None:
    """Put inputs that came without their option's name where those with it are. Raises ParameterError for both."""
    for role in (role for role, reads in stage.reads.items() if reads.argument):
        bare = given.pop(BARE + role)
        if bare is not None and given[role] is not None:
            raise ParameterError(f"{role} was given twice, as {bare} and as --{role} {given[role]}; give it once")
        given[role] = given[role] if bare is None else bare


def _signature(stage: Stage) -> list[inspect.Parameter]:
    found = []
    for role, reads in stage.reads.items():
        if reads.argument:
            argument = typer.Argument(
                metavar=role.upper(), help=reads.text, rich_help_panel="Inputs", show_default=False
            )
            found.append(_parameter(BARE + role, Annotated[str | None, argument], None))
        text = f"{reads.text} ({reads.kind}/NAME)" + ("" if reads.required else " [optional]")
        option = typer.Option(f"--{role.replace('_', '-')}", help=text, rich_help_panel="Inputs", show_default=False)
        found.append(_parameter(role, Annotated[str | None, option], None))
    hints = typing.get_type_hints(stage.params)
    for field in dataclasses.fields(stage.params):
        flag = f"--{field.name.replace('_', '-')}"
        names = f"{flag}/--no-{flag[2:]}" if hints[field.name] is bool else flag
        option = typer.Option(names, help=field.metadata["help"], rich_help_panel=field.metadata["panel"])
        found.append(_parameter(field.name, Annotated[hints[field.name], option], field.default))
    for name, (panel, kind, default) in COMMON.items():
        if {"retry_failed": stage.retries, "seeds": stage.seeds}.get(name, True):
            found.append(_parameter(name, _under(panel, kind), default))
    return found


def _under(panel: str, annotation: Any) -> Any:
    """The same option, in a group of the help."""
    kind, option = typing.get_args(annotation)
    grouped = copy.copy(option)
    grouped.rich_help_panel = panel
    return Annotated[kind, grouped]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def run_stage(
    stage: Stage, name: str | None, given: dict[str, Any], *, store: str, dry_run: bool, force: bool, console: Console
) -> None:
    """Run one step, or one a seed, and print what became of it. Exits with 1 where clips failed."""
    from avvp_pipe.cli.show import print_outcome
    from avvp_pipe.cli.show_seeds import print_seeds
    from avvp_pipe.pipeline.names import step_name
    from avvp_pipe.pipeline.runner import Step, run_step
    from avvp_pipe.pipeline.seeds import seed_steps, seeds_of
    from avvp_pipe.store import Store

    opened = Store(store)
    retry_failed, text = bool(given.pop("retry_failed", False)), given.pop("seeds", None)
    if force and retry_failed:
        raise ParameterError("--force builds all clips anew, --retry-failed only those that failed; give one of them")
    inputs = {role: given.pop(role) for role in stage.reads}
    inputs = {role: reference for role, reference in inputs.items() if reference is not None}
    step = Step(stage.name, step_name(stage, name, given, inputs), given, inputs)
    seeds = () if text is None else seeds_of(text)
    steps = seed_steps(step, seeds) if seeds else (step,)
    if dry_run:
        _plan(opened, stage, steps, console, force=force, retry_failed=retry_failed)
        return
    outcomes = [run_step(opened, one, progress=console, force=force, retry_failed=retry_failed) for one in steps]
    if seeds:
        print_seeds(outcomes, seeds, console)
    else:
        print_outcome(opened, outcomes[0], console)
    if any(outcome.failures for outcome in outcomes):
        raise typer.Exit(FOUND_WRONG)


def _plan(
    opened: "Store", stage: Stage, steps: "Sequence[Step]", console: Console, *, force: bool, retry_failed: bool
) -> None:
    """Print how the steps stand, and what the first of them would cost."""
    from avvp_pipe.cli.show_plan import print_plan
    from avvp_pipe.pipeline.forecast import forecast
    from avvp_pipe.pipeline.status import conditions, made_anew, requested_steps

    references = {one.reference for one in steps}
    asked = [other for other in requested_steps(opened) if other.reference not in references]
    planned = [one for one in conditions(opened, [*asked, *steps]) if one.reference.kind == stage.kind]
    cost = forecast(opened, steps[0], progress=console, force=force, retry_failed=retry_failed)
    mine = [one for one in planned if one.reference.name in {step.name for step in steps}]
    print_plan([made_anew(opened, one, force=force, retry_failed=retry_failed) for one in mine], cost, console)
