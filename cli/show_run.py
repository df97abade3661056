"""How a run is printed: before it starts, and when it is done."""

from collections.abc import Sequence
from typing import Any

from avvp_pipe.cli.console import Console, human_seconds, say, table
from avvp_pipe.cli.recipes import print_compared
from avvp_pipe.cli.show import human_bytes, many_clips, print_failures
from avvp_pipe.pipeline.recipe_run import compared_document
from avvp_pipe.pipeline.run import Finished, compared_rows, scores_of_run
from avvp_pipe.pipeline.run_plan import Ahead
from avvp_pipe.store import Store

METRICS = ("A", "V", "AV", "Type", "Event")
NAMES = 34
"""Widest column of names in tables of 80 columns."""


def print_ahead(ahead: Sequence[Ahead], config: str, store: Store, console: Console) -> None:
    """What a run would do: one line a step, then why, and what the figures rest on."""
    console.result(ahead_document(ahead, config, store), lambda: _say_ahead(ahead))


def ahead_document(ahead: Sequence[Ahead], config: str, store: Store) -> dict[str, Any]:
    """The JSON of a dry run."""
    known = [one.seconds for one in ahead if one.runs and one.seconds is not None]
    return {
        "config": config,
        "store": str(store.root),
        "steps": [
            {
                "id": one.planned.id,
                "stage": one.planned.step.stage,
                "artifact": str(one.condition.reference),
                "state": one.condition.state,
                "reasons": list(one.condition.reasons),
                "clips": one.clips,
                "seconds": one.seconds,
                "bytes": one.bytes,
                "basis": one.basis,
            }
            for one in ahead
        ],
        "to_run": sum(one.runs for one in ahead),
        "cached": sum(not one.runs for one in ahead),
        "seconds": sum(known),
        "unknown": sum(one.runs and one.seconds is None for one in ahead),
    }


def _say_ahead(ahead: Sequence[Ahead]) -> None:
    lines = [
        (
            one.planned.id,
            str(one.planned.step.reference),
            one.condition.state,
            "" if not one.runs else "?" if one.seconds is None else human_seconds(one.seconds),
            "" if not one.runs else "?" if one.bytes is None else human_bytes(one.bytes),
        )
        for one in ahead
    ]
    table("", ("step", "makes", "state", "time", "size"), lines, left=3, widest=26)
    for one in ahead:
        if one.runs:
            say(f"{one.planned.id}")
            for reason in one.condition.reasons:
                say(f"  {reason}")
            clips = "" if one.clips is None else f"{many_clips(one.clips)}, "
            say(f"  time and size: {clips}{one.basis}")
    to_run = [one for one in ahead if one.runs]
    known = [one.seconds for one in to_run if one.seconds is not None]
    unknown = len(to_run) - len(known)
    time = f"; about {human_seconds(sum(known))} for {len(known)} of them" if known else ""
    time += f"; of {unknown} the time cannot be told yet" if unknown else ""
    say(f"{len(ahead) - len(to_run)} cached, {len(to_run)} to run{time}")


def run_document(finished: Finished, config: str, store: Store) -> dict[str, Any]:
    """The JSON of a run that is done."""
    return {
        "config": config,
        "store": str(store.root),
        "seconds": round(finished.seconds, 3),
        "steps": [
            {
                "id": one.id,
                "stage": one.step.stage,
                "artifact": str(outcome.artifact.reference),
                "path": outcome.artifact.location,
                "state": outcome.state,
                "reasons": list(outcome.reasons),
                "failures": len(outcome.failures),
                "seconds": round(outcome.seconds, 3),
                "bytes": outcome.artifact.size_bytes(),
            }
            for one, outcome in zip(finished.planned, finished.outcomes, strict=True)
        ],
        "scores": scores_of_run(finished.outcomes),
        "comparison": [compared_document(row) for row in compared_rows(finished)],
    }


def print_run(finished: Finished, config: str, store: Store, console: Console) -> None:
    """What was made and where, then the scores."""
    console.result(run_document(finished, config, store), lambda: _say_run(finished, store))


def _say_run(finished: Finished, store: Store) -> None:
    lines = [
        (
            str(outcome.artifact.reference),
            outcome.state,
            f"{outcome.seconds:.1f} s",
            human_bytes(outcome.artifact.size_bytes()),
            str(len(outcome.failures) or ""),
        )
        for outcome in finished.outcomes
    ]
    table("", ("artifact", "state", "took", "size", "failed"), lines, left=2, widest=44)
    for outcome in finished.outcomes:
        if outcome.failures:
            say(str(outcome.artifact.reference))
            print_failures(store, outcome)
    print_scored(scores_of_run(finished.outcomes))
    print_compared(compared_rows(finished))
    built = sum(outcome.state == "built" for outcome in finished.outcomes)
    cached = len(finished.outcomes) - built
    say(f"{built} built, {cached} cached, {finished.seconds:.1f} s; everything is in {store.root}")


def print_scored(scores: Sequence[Any], *, split: str | None = None) -> None:
    """Scores of several methods in tables of 80 columns. split: the last that was scored where left out."""
    splits = [one["split"] for one in scores]
    shown = split or next((name for name in ("test", "val", "train") if name in splits), "")
    for level in ("segment", "event"):
        rows = [(one["what"], one["method"], *_numbers(one[level])) for one in scores if one["split"] == shown]
        if rows:
            title = f"{level}-level F on the {shown} split, percent"
            table(title, ("what", "method", *METRICS), rows, left=2, widest=NAMES)


def _numbers(scores: Any) -> list[str]:
    return [f"{scores[name]:.1f}" if name in scores else "-" for name in METRICS]
