"""Running several steps: in order, each once its inputs are there; what was finished stays when one fails."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.recipe import read_recipe
from avvp_pipe.pipeline.recipe_run import Compared, compare
from avvp_pipe.pipeline.run_steps import Planned
from avvp_pipe.pipeline.runner import Outcome, Step, run_step
from avvp_pipe.stages.stage import Progress
from avvp_pipe.store import Reference, Store, StoreError, parse_reference

__all__ = ["Finished", "check_start", "compared_rows", "run_planned", "run_steps", "scores_of_run"]


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that came to its end."""

    planned: tuple[Planned, ...]
    outcomes: tuple[Outcome, ...]
    seconds: float


def run_steps(
    store: Store, steps: Iterable[Step], *, progress: Progress, force: bool = False, retry_failed: bool = False
) -> tuple[Outcome, ...]:
    """Run every step that is not cached. Raises what the steps raise; what is finished by then is kept."""
    every = list(steps)
    outcomes = []
    for number, step in enumerate(every, start=1):
        retry = retry_failed and STAGES[step.stage].retries
        with _named(step, number, len(every)):
            outcome = run_step(store, step, progress=progress, force=force, retry_failed=retry)
        progress.note(f"[{number}/{len(every)}] {outcome.state} {outcome.artifact.reference} ({outcome.seconds:.1f} s)")
        outcomes.append(outcome)
    return tuple(outcomes)


@contextmanager
def _named(step: Step, number: int, count: int) -> Iterator[None]:
    """Say of what a step raises which step it was, where there are several."""
    try:
        yield
    except ValueError as error:
        if count > 1 and len(error.args) == 1 and isinstance(error.args[0], str):
            error.args = (f"{step.reference} (step {number} of {count}, {step.stage}): {error}",)
        raise


def run_planned(
    store: Store, planned: Sequence[Planned], *, progress: Progress, force: bool = False, retry_failed: bool = False
) -> Finished:
    """Check that the run can start, and run it."""
    check_start(store, planned)
    started = time.monotonic()
    steps = [one.step for one in planned]
    outcomes = run_steps(store, steps, progress=progress, force=force, retry_failed=retry_failed)
    return Finished(tuple(planned), outcomes, time.monotonic() - started)


def check_start(store: Store, planned: Sequence[Planned]) -> None:
    """That every input which no step makes is in the store. Raises StoreError naming the step and the remedy."""
    made = {str(one.step.reference) for one in planned}
    for one in planned:
        for role, text in one.step.inputs.items():
            if text in made:
                continue
            reference = parse_reference(text)
            if str(Reference(reference.kind, reference.name)) not in made:
                try:
                    store.get(text)
                except StoreError as error:
                    raise StoreError(f"step {one.id!r} reads {role} {text}, which no step makes: {error}") from None


def scores_of_run(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """Every score that was measured: artifact, what, method, split, and both levels."""
    return [
        {
            "scores": str(outcome.artifact.reference),
            "what": outcome.artifact.attrs["what"],
            "method": outcome.artifact.attrs["method"],
            "split": one["split"],
            "segment": one["of"]["segment"],
            "event": one["of"]["event"],
        }
        for outcome in outcomes
        if outcome.artifact.kind == "scores"
        for one in outcome.artifact.attrs["scores"]
    ]


def compared_rows(finished: Finished) -> list[Compared]:
    """What recipes among the steps published, beside what was measured."""
    rows: list[Compared] = []
    for one, outcome in zip(finished.planned, finished.outcomes, strict=True):
        if one.recipe and outcome.artifact.kind == "scores":
            rows += compare(read_recipe(one.recipe), outcome.artifact)
    return rows
