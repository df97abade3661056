"""The command that puts parts together."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, guarded, say
from avvp_pipe.cli.options import DEFAULT_STORE_PATH, AsJson, DryRun, Force, Quiet, StorePath, Verbose

if TYPE_CHECKING:
    from avvp_pipe.pipeline.merge_plan import MergePlan
    from avvp_pipe.store import Store


@guarded
def merge(
    reference: Annotated[str, typer.Argument(help="kind/name of the whole: media/llp, features/llp.")],
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--from", metavar="STORE", help="A further store that holds parts, of another machine; repeatable."
        ),
    ] = None,
    store: StorePath = DEFAULT_STORE_PATH,
    dry_run: DryRun = False,
    force: Force = False,
    json: AsJson = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Put the parts that --shard made together, to the bytes that one run over all clips writes.

    Exits with 1 where clips failed. Example: avvp-pipe merge features/llp --from /mnt/second/artifacts
    """
    from avvp_pipe.cli.show import outcome_document, print_failures
    from avvp_pipe.pipeline.merge import merge_parts
    from avvp_pipe.pipeline.merge_plan import plan_merge
    from avvp_pipe.store import Store

    opened, console = Store(store), Console(as_json=json, quiet=quiet)
    plan = plan_merge(opened, reference, [Store(other) for other in others or []])
    if dry_run:
        _print_plan(opened, plan, force=force, console=console)
        return
    outcome = merge_parts(opened, plan, progress=console, force=force)
    commands = _removal(plan)

    def shown() -> None:
        say(f"{outcome.state} {outcome.artifact.reference} in {outcome.seconds:.1f} s")
        for reason in outcome.reasons:
            say(f"  {reason}")
        print_failures(opened, outcome)
        say("the parts are not needed any more; to remove them:")
        for command in commands:
            say(f"  {command}")

    console.result({**outcome_document(outcome), **_document(plan), "remove": commands}, shown)
    if outcome.failures:
        raise typer.Exit(FOUND_WRONG)


def _print_plan(store: "Store", plan: "MergePlan", *, force: bool, console: Console) -> None:
    from avvp_pipe.pipeline.merge import standing

    _, reasons = standing(store, plan, force=force)
    state = "would build" if reasons else "cached"

    def shown() -> None:
        say(f"{state} {plan.reference} of {len(plan.parts)} parts, {plan.rows[-1].stop} clips")
        for reason in reasons:
            say(f"  {reason}")
        for one in _document(plan)["parts"]:
            say(f"  {one['part']}  {one['artifact']} in {one['store']}: {one['clips']} clips, {one['failed']} failed")
        for note in plan.notes:
            say(f"note: {note}")

    document = {"artifact": str(plan.reference), "state": state, "reasons": list(reasons), **_document(plan)}
    console.result(document, shown)


def _document(plan: "MergePlan") -> dict[str, Any]:
    parts = [
        {
            "part": str(one.part),
            "artifact": str(one.artifact.reference),
            "store": str(one.store.root),
            "clips": rows.stop - rows.start,
            "failed": len(one.artifact.provenance["failures"]),
        }
        for one, rows in zip(plan.parts, plan.rows, strict=True)
    ]
    return {"parts": parts, "notes": list(plan.notes)}


def _removal(plan: "MergePlan") -> list[str]:
    """The commands that remove the parts, one for each store."""
    found: dict[str, list[str]] = {}
    for one in plan.parts:
        found.setdefault(str(one.store.root), []).append(str(one.artifact.reference))
    return [shlex.join(["avvp-pipe", "gc", *names, "--store", root]) for root, names in found.items()]
