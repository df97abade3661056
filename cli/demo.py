"""The demo's command: run it, print its table."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from avvp_pipe.cli.console import FOUND_WRONG, Console, say, table
from avvp_pipe.cli.show import print_conditions
from avvp_pipe.pipeline.demo import Demo, Scored, Size, plan, run_demo
from avvp_pipe.pipeline.status import conditions
from avvp_pipe.store import Store

METRICS = ("A", "V", "AV", "Type", "Event")
WIDEST = 34
"""Of names, in a table of 80 columns."""


def run_and_print(
    out: Path, size: Size, seed: int, settings: Sequence[str], *, dry_run: bool, console: Console
) -> None:
    """Run the demo (or say what it would do) and print the table. Exits with 1 where clips failed."""
    if dry_run:
        steps = plan(out / "world", size=size, seed=seed, settings=settings)
        print_conditions(conditions(Store(out / "artifacts"), steps), console)
        return
    started = time.monotonic()
    demo = run_demo(out, size=size, seed=seed, settings=settings, progress=console)
    seconds = time.monotonic() - started
    console.result(document(demo, seconds), lambda: _print(demo, seconds, out))
    if any(outcome.failures for outcome in demo.outcomes):
        raise typer.Exit(FOUND_WRONG)


def document(demo: Demo, seconds: float) -> dict[str, Any]:
    """The JSON of a demo: seconds, artifacts, scores."""
    return {
        "seconds": round(seconds, 2),
        "artifacts": [
            {"artifact": str(outcome.artifact.reference), "state": outcome.state} for outcome in demo.outcomes
        ],
        "scores": [asdict(row) for row in demo.scores],
    }


def _print(demo: Demo, seconds: float, out: Path) -> None:
    for level in ("segment", "event"):
        rows = [_line(row, level) for row in demo.scores if row.split == "test"]
        table(f"{level}-level F on the test split, percent", ("what", "method", *METRICS), rows, left=2, widest=WIDEST)
    built = sum(outcome.state == "built" for outcome in demo.outcomes)
    say(f"{built} artifacts built, {len(demo.outcomes) - built} cached, {seconds:.1f} s; everything is in {out}")


def _line(row: Scored, level: str) -> tuple[str, ...]:
    scores = row.segment if level == "segment" else row.event
    return (row.what, row.method, *(f"{scores[name]:.1f}" for name in METRICS))
