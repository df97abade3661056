"""What is cached, stale or missing, and why: what was asked for, held against what the store has.

Keys are made of keys, so the whole chain is judged without reading one array: the key that a step would have
now follows from its parameters, its stage's version, and the keys that its inputs would have now.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, identify, input_references, outdated
from avvp_pipe.pipeline.settling import settled
from avvp_pipe.stages.stage import as_given, make_params
from avvp_pipe.store import Artifact, Identity, Reference, Store, StoreError, differences

State = Literal["cached", "stale", "missing"]


@dataclass(frozen=True, slots=True)
class Condition:
    """How one step stands."""

    reference: Reference
    """kind/name@key of the artifact that the step would have now."""
    stage: str
    state: State
    reasons: tuple[str, ...]
    """Why it is not cached, one line each."""


def requested_steps(store: Store) -> tuple[Step, ...]:
    """Everything that was asked for in a store, in the pipeline's order. Raises StoreError for an unknown stage."""
    steps = []
    for reference, request in store.requests():
        if request.stage not in STAGES:
            raise StoreError(
                f"{reference} was asked for from the stage {request.stage!r}, which this program does not have; it has "
                f"{', '.join(STAGES)}. Use the avvp-pipe that asked for it, or delete {reference}/.request.json"
            )
        steps.append(Step(request.stage, reference.name, request.params, request.inputs))
    return tuple(steps)


def made_anew(store: Store, one: Condition, *, force: bool, retry_failed: bool) -> Condition:
    """How a step stands that is asked to be made again: what is there is not what is wanted."""
    found = store.find(one.reference) if one.state == "cached" else None
    failed = len(found.provenance["failures"]) if found and retry_failed and not force else 0
    if found is None or not (force or failed):
        return one
    return replace(one, state="stale", reasons=("forced" if force else f"{failed} failed clips are tried again",))


def conditions(store: Store, steps: Iterable[Step]) -> tuple[Condition, ...]:
    """How each step stands. `steps` in an order in which they could run."""
    judge = _Judge(store, {step.reference: step for step in steps})
    return tuple(judge.condition(reference) for reference in judge.steps)


@dataclass(frozen=True, slots=True)
class _Judge:
    store: Store
    steps: dict[Reference, Step]
    known: dict[Reference, Identity | str] = field(default_factory=dict)
    """Identity that the artifact would have now, or in words why that cannot be told."""
    renewed: dict[Reference, tuple[str, ...]] = field(default_factory=dict)

    there: dict[Reference, Artifact | None] = field(default_factory=dict)
    """What was found; each artifact is opened once."""

    def find(self, reference: Reference) -> Artifact | None:
        if reference not in self.there:
            found = self.store.find(reference)
            known = None if found is None else self.there.get(found.reference)
            self.there[reference] = known or found
            if found is not None:
                self.there[found.reference] = self.there[reference]
        return self.there[reference]

    def condition(self, reference: Reference) -> Condition:
        step = self.steps[reference]
        expected = self.expected(reference)
        newest = self.find(reference)
        if isinstance(expected, str):
            state: State = "stale" if newest else "missing"
            return Condition(reference, step.stage, state, (expected,))
        wanted = Reference(reference.kind, reference.name, expected.key)
        if found := self.find(wanted):
            renewed = self._renewed(reference, found)
            return Condition(wanted, step.stage, "stale" if renewed else "cached", renewed)
        if newest is None:
            return Condition(wanted, step.stage, "missing", ("not made yet",))
        return Condition(wanted, step.stage, "stale", self._why(newest, expected, step))

    def expected(self, reference: Reference) -> Identity | str:
        if reference not in self.known:
            self.known[reference] = self._expected(self.steps[reference])
        return self.known[reference]

    def _expected(self, step: Step) -> Identity | str:
        stage = STAGES[step.stage]
        try:
            given = make_params(stage, step.params)
            references = input_references(stage, step.inputs)
            keys: dict[str, str] = {}
            artifacts: dict[str, Artifact] = {}
            for role, reference in references.items():
                key = self._key(reference)
                if key is None:
                    return f"input {role}: {reference} is missing"
                keys[role] = key
                if found := self.find(Reference(reference.kind, reference.name, key)):
                    artifacts[role] = found
            # Sources are read through the inputs (the videos of a dataset), or need none of them (teachers).
            if stage.settle is not as_given and (lacking := sorted(set(references) - set(artifacts))):
                return f"input {lacking[0]} is to be made first"
            params = settled(stage, given, artifacts)
            return identify(stage, params, keys, stage.sources(params, artifacts))
        except KeyError as missing:
            return f"input {missing.args[0]} is to be made first"
        except (ValueError, OSError) as error:
            return str(error)

    def _renewed(self, reference: Reference, found: Artifact) -> tuple[str, ...]:
        """Why a step that is there is to be run again: inputs that were built anew since, or are to be."""
        if reference not in self.renewed:
            step, expected = self.steps[reference], found.identity
            inputs = self._inputs(step, expected)
            stage = STAGES[step.stage]
            lines = outdated(stage, make_params(stage, step.params), found, inputs)
            for role, one in input_references(stage, step.inputs).items():
                current = Reference(one.kind, one.name)
                if one.version is None and current in self.steps and role in inputs and one.kind != "dataset":
                    lines += (f"input {role} is to be built anew",) if self._renewed(current, inputs[role]) else ()
            self.renewed[reference] = lines
        return self.renewed[reference]

    def _inputs(self, step: Step, expected: Identity) -> dict[str, Artifact]:
        """The inputs that are there, as the step would read them now."""
        references = input_references(STAGES[step.stage], step.inputs)
        found = {
            role: self.find(Reference(one.kind, one.name, expected.inputs[role])) for role, one in references.items()
        }
        return {role: artifact for role, artifact in found.items() if artifact}

    def _key(self, reference: Reference) -> str | None:
        unversioned = Reference(reference.kind, reference.name)
        if reference.version is None and unversioned in self.steps:
            expected = self.expected(unversioned)
            return None if isinstance(expected, str) else expected.key
        found = self.find(reference)
        return found.key if found else None

    def _why(self, newest: Artifact, expected: Identity, step: Step) -> tuple[str, ...]:
        lines = list(differences(newest.identity, expected))
        for role, old_key in newest.identity.inputs.items():
            if expected.inputs.get(role) in (old_key, None) or role not in step.inputs:
                continue
            lines += [f"  because {line}" for line in self._upstream(step, role, old_key, expected.inputs[role])]
        return tuple(lines)

    def _upstream(self, step: Step, role: str, old_key: str, new_key: str) -> tuple[str, ...]:
        reference = input_references(STAGES[step.stage], step.inputs)[role]
        old = self.find(Reference(reference.kind, reference.name, old_key))
        new = self.find(Reference(reference.kind, reference.name, new_key))
        now = new.identity if new else self.known.get(Reference(reference.kind, reference.name))
        if old is None or not isinstance(now, Identity):
            return ()
        return tuple(f"{reference}: {line}" for line in differences(old.identity, now))
