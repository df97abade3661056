"""What a step would cost, measured on a few clips, before it is run."""

from collections.abc import Mapping
from typing import Any

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.runner import Step, earlier, identify, input_references, renewed_inputs
from avvp_pipe.pipeline.settling import settled
from avvp_pipe.stages.stage import Progress, make_params
from avvp_pipe.store import Reference, Store
from avvp_pipe.store.journal import JOURNAL
from avvp_pipe.store.sites import partial_name

__all__ = ["forecast"]


def forecast(
    store: Store, step: Step, *, progress: Progress, force: bool = False, retry_failed: bool = False
) -> Mapping[str, Any] | None:
    """What the stage estimates (`Stage.estimate`), with `to_do`, the clips that are left, and `seconds.total`.

    None where the stage estimates nothing, an input is not there yet, or nothing is left to do. Writes nothing but the
    memory of files' digests. Raises ValueError for parameters that are wrong and weights that are missing.
    """
    stage = STAGES[step.stage]
    if stage.estimate is None:
        return None
    given = make_params(stage, step.params)
    found = {role: store.find(reference) for role, reference in input_references(stage, step.inputs).items()}
    inputs = {role: artifact for role, artifact in found.items() if artifact}
    if len(inputs) < len(found):
        return None
    from avvp_pipe.stages.clips.estimate import clip_digests
    from avvp_pipe.stages.clips.units import redo_mask

    params = settled(stage, given, inputs)
    keys = {role: artifact.key for role, artifact in inputs.items()}
    identity = identify(stage, params, keys, stage.sources(params, inputs))
    there = store.find(Reference(stage.kind, step.name, identity.key))
    before = there or store.find(Reference(stage.kind, step.name))
    previous = earlier(store, before, identity, step.reference) if retry_failed else None
    if there and not force and not renewed_inputs(there, inputs) and not (previous and there.provenance["failures"]):
        return None
    estimate = stage.estimate(inputs, params, progress)
    if previous is not None:
        return _whole(estimate, int(redo_mask(previous, clip_digests(inputs, params)).sum()))
    begun = 0 if there else _shards_done(store, Reference(stage.kind, step.name, identity.key))
    return _whole(estimate, max(estimate["clips"] - begun * stage.shard_rows, 0))


def _shards_done(store: Store, reference: Reference) -> int:
    """Shards that an interrupted build in a folder has finished; in a bucket they are not counted."""
    journal = f"{reference.kind}/{reference.name}/{partial_name(str(reference.version))}/{JOURNAL}"
    try:
        return store.place.read(journal).count(b"\n")
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _whole(estimate: Mapping[str, Any], to_do: int) -> Mapping[str, Any]:
    seconds = estimate["seconds"]
    if seconds is None:
        return {**estimate, "to_do": to_do}
    total = sum(seconds["once"].values()) + seconds["clip"] * max(to_do - estimate["missing_files"], 0)
    return {**estimate, "to_do": to_do, "seconds": {**seconds, "total": total}}
