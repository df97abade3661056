"""Running one step: find what it reads, make its key, and build the artifact unless the store has it."""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.settling import settled
from avvp_pipe.stages.stage import ParameterError, Progress, Stage, make_params, params_in_key, params_outside_key
from avvp_pipe.store import (
    Artifact,
    Identity,
    Reference,
    Request,
    Store,
    StoreError,
    differences,
    parse_reference,
)

if TYPE_CHECKING:
    from avvp_pipe.store import Builder

PACKAGES = (
    "avvp-pipe",
    "numpy",
    "torch",
    "torchvision",
    "torchaudio",
    "soxr",
    "zarr",
    "open_clip_torch",
    "laion_clap",
    "transformers",
    "decord",
    "av",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One stage asked to run: what to call its artifact, with which parameters, on which inputs."""

    stage: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """Those that differ from the stage's defaults."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Role -> reference."""

    @property
    def reference(self) -> Reference:
        """kind/name of what the step writes."""
        return Reference(STAGES[self.stage].kind, self.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a step."""

    artifact: Artifact
    state: Literal["built", "cached"]
    reasons: tuple[str, ...]
    """Why it was built: how it differs from what stood under its name before."""
    failures: tuple[Mapping[str, str], ...]
    """Clips that could not be processed: video_id, code, message."""
    seconds: float


def run_step(
    store: Store, step: Step, *, progress: Progress, force: bool = False, retry_failed: bool = False
) -> Outcome:
    """Bring a step's artifact into being, or find it. `force` builds it anew.

    retry_failed: clips that failed before, or whose files have changed, are tried again, and the rest is taken over
    from the earlier artifact. What an input was when it was read is part of what is found: after an input was built
    anew with other bytes (its failed clips tried again), so is this. Raises ParameterError, StoreError (an input is
    missing, the store cannot be written) and what the stage raises; whatever is raised, nothing half-written is ever
    visible.
    """
    started = time.monotonic()
    stage = STAGES[step.stage]
    given = make_params(stage, step.params)
    inputs = _inputs(store, stage, step.inputs)
    params = settled(stage, given, inputs)
    keys = {role: artifact.key for role, artifact in inputs.items()}
    identity = identify(stage, params, keys, stage.sources(params, inputs))
    reference = Reference(stage.kind, step.name, identity.key)
    before = store.find(Reference(stage.kind, step.name))
    store.ask(step.reference, request_of(step, given, identity.key))
    found = store.find(reference)
    previous = earlier(store, found or before, identity, step.reference) if retry_failed else None
    late = outdated(stage, given, found, inputs) if found else ()
    reasons = _reasons(found or before, identity, late, force=force, retried=previous)
    if found and not reasons:
        store.tidy(found)
        return outcome_of(found, "cached", (), started)
    state: Literal["built", "cached"] = "cached"  # where another process builds it while this one waits
    with store.build(
        reference,
        identity,
        shard_rows=stage.shard_rows,
        provenance=lambda builder: provenance_of(identity, still_there(store, inputs), builder),
        run_facts={"params": params_outside_key(params), "machine": platform.machine()},
        waiting=lambda holder: progress.note(f"{reference} is being built by {holder or 'another process'}; waiting"),
        renew=bool(found),
        previous=previous,
        begun_with={**begun_with(inputs, found), "forced": bool(found) and force},
    ) as builder:
        if builder is not None:
            stage.run(inputs, params, builder, progress)
            _carry_origin(inputs, builder)
            state = "built"
    built = store.find(reference)
    assert built is not None, f"{reference} was published and is gone"
    return outcome_of(built, state, reasons if state == "built" else (), started)


def _carry_origin(inputs: Mapping[str, Artifact], builder: "Builder") -> None:
    """What was made of simulated or imported things says so too, unless the stage has said where it comes from."""
    origins = dict.fromkeys(str(one.attrs["origin"]) for one in inputs.values() if one.attrs.get("origin"))
    if origins and "origin" not in builder.attributes:
        builder.describe(origin="; ".join(origins))


def _reasons(
    known: Artifact | None,
    identity: Identity,
    late: tuple[str, ...],
    *,
    force: bool,
    retried: Artifact | None,
) -> tuple[str, ...]:
    """Why the artifact is to be built; none where it is there and right. known: it, or what stood under its name.

    late: why it is not right, its key notwithstanding.
    """
    if known is None:
        return ("nothing of this name yet",)
    if known.key != identity.key:
        return tuple(differences(known.identity, identity))
    if force:
        return ("forced",)
    if retried and (failed := len(known.provenance["failures"])):
        return (f"{failed} failed clips are tried again",)
    return late


def outdated(stage: Stage, params: Any, made: Artifact, inputs: Mapping[str, Artifact]) -> tuple[str, ...]:
    """Why a finished artifact of the right key is to be built anew, in words: other bytes of inputs, other places."""
    moved = stage.moved(params, made)
    return (*((moved,) if moved else ()), *renewed_inputs(made, inputs))


def renewed_inputs(artifact: Artifact, inputs: Mapping[str, Artifact]) -> tuple[str, ...]:
    """Which inputs of a finished artifact have other bytes now than when it read them, in words."""
    then = artifact.provenance.get("input_digests", {})
    roles = [role for role, now in _digests(inputs).items() if then.get(role, now) != now]
    return tuple(f"input {role} was built anew since" for role in roles)


def _digests(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """Role -> digest, where it can change under a key; a dataset's does so only with the place of its files."""
    return {role: artifact.digest for role, artifact in inputs.items() if artifact.kind != "dataset"}


def begun_with(inputs: Mapping[str, Artifact], older: Artifact | None) -> dict[str, Any]:
    """What an unfinished build must have begun with to be gone on with: the same bytes, in place of the same ones."""
    try:
        replaced = older.digest if older else None
    except StoreError:  # it is damaged, which may be why it is built anew
        replaced = "damaged"
    return {"inputs": _digests(inputs), "older": replaced}


def earlier(store: Store, known: Artifact | None, identity: Identity, name: Reference) -> Artifact | None:
    """The artifact whose sound clips may be taken over: made likewise, from the same clips, of other files at most.

    known: what stands under the name; else the newest of it that will do.
    """
    others = [one for one in store.artifacts() if (one.kind, one.name) == (name.kind, name.name)] if known else []
    likely = [known, *reversed(others)] if known else []
    return next((one for one in likely if _made_likewise(store, one.identity, identity)), None)


def _made_likewise(store: Store, old: Identity, new: Identity) -> bool:
    """Whether two identities differ in nothing but the bytes of video files, in themselves or in their media."""
    if (old.stage, old.version, old.params) != (new.stage, new.version, new.params):
        return False
    if any(old.sources.get(name) != new.sources.get(name) for name in {*old.sources, *new.sources} - {"videos"}):
        return False
    changed = {role for role in {*old.inputs, *new.inputs} if old.inputs.get(role) != new.inputs.get(role)}
    if not changed:
        return True
    before, now = (_identity_of_media(store, one.inputs.get("media")) for one in (old, new))
    return changed == {"media"} and before is not None and now is not None and _made_likewise(store, before, now)


def _identity_of_media(store: Store, key: str | None) -> Identity | None:
    found = (one.identity for one in store.artifacts() if one.kind == "media" and one.key == key)
    return next(found, None)


def still_there(store: Store, inputs: Mapping[str, Artifact]) -> Mapping[str, Artifact]:
    """The inputs, unless one was removed or replaced while it was read: then nothing is published."""
    for role, artifact in inputs.items():
        now = store.find(artifact.reference)
        if now is None or now.digest != artifact.digest:
            state = "removed" if now is None else "built anew"
            raise StoreError(f"{role} {artifact.reference} was {state} while it was being read; run the command again")
    return inputs


def identify(stage: Stage, params: Any, keys: Mapping[str, str], sources: Mapping[str, str]) -> Identity:
    """The identity of what `stage` makes of these parameters, input keys and sources."""
    return Identity(stage.name, stage.version, params_in_key(params), dict(sorted(keys.items())), dict(sources))


def request_of(step: Step, params: Any, key: str) -> Request:
    """The step as the store remembers it."""
    every = {**params_in_key(params), **params_outside_key(params)}
    return Request(step.stage, every, dict(step.inputs), key)


def input_references(stage: Stage, given: Mapping[str, str]) -> dict[str, Reference]:
    """Role -> parsed reference. Raises ParameterError for a role that is missing or unknown."""
    for role in given:
        if role not in stage.reads:
            raise ParameterError(f"{stage.name} reads no {role!r}; it reads {', '.join(stage.reads) or 'nothing'}")
    for role, reads in stage.reads.items():
        if reads.required and role not in given:
            raise ParameterError(
                f"{stage.name} needs {role} ({reads.text.rstrip('.')}); give it as --{role} {reads.kinds[0]}/NAME"
            )
    return {role: _reference(stage.reads[role].kinds, text) for role, text in given.items()}


def _reference(kinds: tuple[str, ...], text: str) -> Reference:
    if len(kinds) == 1:
        return parse_reference(text, kind=kinds[0])
    reference = parse_reference(text)
    if reference.kind not in kinds:
        raise StoreError(f"{text!r} names a {reference.kind} artifact where one of {' or '.join(kinds)} is wanted")
    return reference


def _inputs(store: Store, stage: Stage, given: Mapping[str, str]) -> dict[str, Artifact]:
    return {role: store.get(str(reference)) for role, reference in input_references(stage, given).items()}


def provenance_of(identity: Identity, inputs: Mapping[str, Artifact], builder: "Builder") -> dict[str, Any]:
    """The record of a finished build: what was made of what, with which software, and the clips that failed."""
    earlier_software = [builder.previous.provenance["software"]] if builder.previous else []
    return {
        "stage": identity.stage,
        "stage_version": identity.version,
        "params": dict(identity.params),
        "inputs": {role: str(artifact.reference) for role, artifact in inputs.items()},
        "input_digests": {role: artifact.content_digest for role, artifact in inputs.items()},
        "sources": dict(identity.sources),
        "software": joined_software([*earlier_software, _software()]),
        "failures": [
            {"video_id": failure.video_id, "code": failure.code, "message": failure.message}
            for failure in builder.failures
        ],
    }


@cache
def _software() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def joined_software(every: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Package -> version that computed what was put together; several where they differ."""
    names = {name: None for software in every for name in software}
    versions = {name: [v for one in every for v in str(one.get(name, "unknown")).split(" and ")] for name in names}
    return {name: " and ".join(dict.fromkeys(found)) for name, found in versions.items()}


def outcome_of(
    artifact: Artifact, state: Literal["built", "cached"], reasons: tuple[str, ...], started: float
) -> Outcome:
    """What became of an artifact that is there. started: of `time.monotonic()`."""
    failures = tuple(artifact.provenance["failures"])
    return Outcome(artifact, state, reasons, failures, time.monotonic() - started)
