"""What a run would do before it does it: of every step whether it will run, why, how long, and how large.

How long and how large is measured on a few clips where a stage can do that and its inputs are there; else it is what
the same step took before, or the step of the same stage in the store that is most like it; else it cannot be told.
Datasets that are missing are read into a folder that is thrown away, so that what is made of their videos can be
measured before anything is there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.forecast import forecast
from avvp_pipe.pipeline.run_steps import Planned
from avvp_pipe.pipeline.runner import run_step
from avvp_pipe.pipeline.status import Condition, conditions, made_anew, requested_steps
from avvp_pipe.stages.stage import Progress, Silent, make_params, params_in_key
from avvp_pipe.store import Artifact, Reference, Store, StoreError

__all__ = ["Ahead", "look_ahead"]


@dataclass(frozen=True, slots=True)
class Ahead:
    """One step of a run, and what it would take."""

    planned: Planned
    condition: Condition
    """State and reasons; `cached` steps are not run."""
    clips: int | None
    """That are to be done, where it was measured."""
    seconds: float | None
    bytes: int | None
    basis: str
    """What seconds and bytes rest on, in words; empty where nothing is to be done."""

    @property
    def runs(self) -> bool:
        """Whether the step would run."""
        return self.condition.state != "cached"


def look_ahead(
    store: Store,
    planned: Sequence[Planned],
    *,
    progress: Progress,
    force: bool = False,
    retry_failed: bool = False,
    measure: bool = True,
) -> tuple[Ahead, ...]:
    """How the steps stand. measure: whether stages may work on a few clips to tell how long they take.

    Writes nothing but the memory of files' digests.
    """
    mine = {one.step.reference for one in planned}
    asked = [step for step in requested_steps(store) if step.reference not in mine]
    every = conditions(store, [*asked, *(one.step for one in planned)])
    found = {Reference(one.reference.kind, one.reference.name): one for one in every}
    to_run: set[str] = set()
    ahead = []
    with _Aside() as aside:
        for one in planned:
            retry = retry_failed and STAGES[one.step.stage].retries
            condition = made_anew(store, found[one.step.reference], force=force, retry_failed=retry)
            after = [text for text in one.step.inputs.values() if text in to_run]
            if condition.state == "cached":
                ahead.append(Ahead(one, condition, None, None, None, ""))
                continue
            to_run.add(str(one.step.reference))
            if measure and one.step.stage == "dataset":
                ahead.append(aside.read(one, condition))
                continue
            where = aside.store if aside.holds(one) else None if after else store
            cost = _measured(where, one, progress, force=force, retry_failed=retry) if where and measure else None
            ahead.append(_from_measured(one, condition, cost) if cost else _from_before(store, one, condition, after))
    return tuple(ahead)


class _Aside:
    """Datasets of the run that are not there yet, in a store of their own that goes when all is told."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="avvp-pipe-")
        self.store = Store(self._folder.name)
        self._there: set[str] = set()

    def __enter__(self) -> "_Aside":
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def read(self, one: Planned, condition: Condition) -> Ahead:
        """Make a dataset, and say what that took, or why it cannot be made."""
        try:
            outcome = run_step(self.store, one.step, progress=Silent())
        except (ValueError, OSError) as error:
            return Ahead(one, condition, None, None, None, f"cannot run as it is: {error}")
        self._there.add(str(one.step.reference))
        clips = outcome.artifact.facts("lengths").shape[0]
        return Ahead(one, condition, clips, outcome.seconds, outcome.artifact.size_bytes(), "read to plan with")

    def holds(self, one: Planned) -> bool:
        """Whether everything that the step reads is here."""
        return bool(one.step.inputs) and self._there.issuperset(one.step.inputs.values())


def _measured(
    store: Store, one: Planned, progress: Progress, *, force: bool, retry_failed: bool
) -> Mapping[str, Any] | str | None:
    try:
        return forecast(store, one.step, progress=progress, force=force, retry_failed=retry_failed)
    except (ValueError, OSError) as error:
        return f"cannot run as it is: {error}"


def _from_measured(one: Planned, condition: Condition, cost: Mapping[str, Any] | str) -> Ahead:
    if isinstance(cost, str):
        return Ahead(one, condition, None, None, None, cost)
    seconds = cost["seconds"]
    basis = f"measured on {cost['sample']['clips']} of {cost['clips']} clips"
    if seconds is None:
        basis = "no clip could be measured"
    return Ahead(one, condition, cost["to_do"], None if seconds is None else seconds["total"], cost["bytes"], basis)


def _from_before(store: Store, one: Planned, condition: Condition, after: Sequence[str]) -> Ahead:
    known = _most_like(store, one)
    if known is None:
        lacking = f"cannot be told before {after[0]} is made" if after else "nothing like it was made here yet"
        return Ahead(one, condition, None, None, None, lacking)
    seconds = store.run_record(known).get("seconds")
    told = float(seconds) if isinstance(seconds, int | float) else None
    return Ahead(one, condition, None, told, known.size_bytes(), f"as {known.reference} took")


def _most_like(store: Store, one: Planned) -> Artifact | None:
    """What the step made before, else what its stage made with the fewest other parameters, newest first."""
    if before := store.find(one.step.reference):
        return before
    stage = STAGES[one.step.stage]
    wanted = params_in_key(make_params(stage, one.step.params))
    best: tuple[int, str, Artifact] | None = None
    for artifact in store.artifacts():
        if artifact.kind != stage.kind:
            continue
        try:
            record = artifact.provenance
        except StoreError:  # a damaged one tells nothing
            continue
        if record["stage"] == stage.name:
            same = sum(record["params"].get(name) == value for name, value in wanted.items())
            if best is None or (same, store.finished(artifact)) >= best[:2]:
                best = (same, store.finished(artifact), artifact)
    return best[2] if best else None
