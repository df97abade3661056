"""Putting the parts of an artifact together, to the bytes that one run over all clips would have written.

Parts are cut at whole units and every unit is computed by itself (`stages/clips/units.py`), so nothing is computed
here: rows are copied shard by shard. A merge that was killed goes on where it stopped, as any build.
"""

import dataclasses
import platform
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.pipeline.commands import step_of
from avvp_pipe.pipeline.merge_plan import TEXTS, MergePlan, software_of
from avvp_pipe.pipeline.runner import Outcome, begun_with, outcome_of, provenance_of, renewed_inputs, still_there
from avvp_pipe.stages.stage import Progress, counted
from avvp_pipe.store import Artifact, Failure, Reference, Request, Store, StoreError, parse_reference
from avvp_pipe.store.verify import verify

if TYPE_CHECKING:
    from avvp_pipe.store import Builder

__all__ = ["merge_parts", "standing"]

RECORDS = ("video_ids", "splits", "weak", "lengths", "video_digests")
"""Arrays that stages write whole; the others, one shard at a time."""


def standing(store: Store, plan: MergePlan, *, force: bool = False) -> tuple[Artifact | None, tuple[str, ...]]:
    """The whole as the store has it, and why it is to be built; no reasons where it is there and right."""
    found = store.find(plan.reference)
    if found is None:
        return None, (f"{len(plan.parts)} parts are to be put together",)
    if force:
        return found, ("forced",)
    lost = {failure["video_id"] for failure in plan.failures}
    won = [failure for failure in found.provenance["failures"] if failure["video_id"] not in lost]
    better = (f"{len(won)} clips failed in it that the parts have now",) if won else ()
    return found, better + renewed_inputs(found, plan.inputs)


def merge_parts(store: Store, plan: MergePlan, *, progress: Progress, force: bool = False) -> Outcome:
    """Build the whole from its parts, or find it. Every byte of the parts is checked before any is copied.

    Raises StoreError where a part is damaged or vanishes meanwhile, StoreWriteError where `store` cannot be written.
    """
    started = time.monotonic()
    found, reasons = standing(store, plan, force=force)
    for note in plan.notes:
        progress.note(f"note: {note}")
    if reasons:
        _check_whole(plan, progress)
    store.ask(Reference(plan.reference.kind, plan.reference.name), _request(store, plan))
    if found and not reasons:
        store.tidy(found)
    elif not _build(store, plan, progress, older=found):
        reasons = ()
    built = store.find(plan.reference)
    assert built is not None, f"{plan.reference} was published and is gone"
    _settle_requests(store, plan)
    return outcome_of(built, "built" if reasons else "cached", reasons, started)


def _check_whole(plan: MergePlan, progress: Progress) -> None:
    for one in progress.track(plan.parts, total=len(plan.parts), label="merge, parts looked through"):
        if findings := verify(one.artifact).findings:
            raise StoreError(
                f"{one} is damaged: {findings[0].where}: {findings[0].message}. Make it again with --force where it "
                "was made"
            )


def _build(store: Store, plan: MergePlan, progress: Progress, *, older: Artifact | None) -> bool:
    """Whether it was built here, and not by another process while this one waited."""
    made_of = {
        str(one.part): {"artifact": str(one.artifact.reference), "store": str(one.store.root)} for one in plan.parts
    }

    def record(builder: "Builder") -> dict[str, Any]:
        for one in plan.parts:
            still_there(one.store, {f"part {one.part}": one.artifact})
        made = provenance_of(plan.identity, still_there(store, plan.inputs), builder)
        return {**made, "software": software_of(plan.parts)}

    with store.build(
        plan.reference,
        plan.identity,
        shard_rows=plan.stage.shard_rows,
        provenance=record,
        run_facts={"machine": platform.machine(), "merged": made_of},
        waiting=lambda who: progress.note(f"{plan.reference} is being built by {who or 'another process'}; waiting"),
        renew=older is not None,
        begun_with={**begun_with(plan.inputs, older), "parts": [one.artifact.digest for one in plan.parts]},
    ) as builder:
        if builder is not None:
            _copy(plan, builder, progress)
        return builder is not None


def _copy(plan: MergePlan, out: "Builder", progress: Progress) -> None:
    first, clips = plan.parts[0].artifact, plan.rows[-1].stop
    every = [one.artifact for one in plan.parts]
    declared = []
    for name in first.array_names():
        facts = first.facts(name)
        if name.startswith(TEXTS):
            out.put(name, first.array(name))
        elif name not in RECORDS:
            out.declare(name, (clips, *facts.shape[1:]), facts.dtype, fill=first.lazy(name).fill_value.item())
            declared.append(name)
        elif facts.dtype == "string":
            out.put(name, [text for artifact in every for text in artifact.strings(name)])
        else:
            out.put(name, np.concatenate([artifact.array(name) for artifact in every]))
    out.describe(**first.described)
    pending = list(out.pending())
    done = clips - sum(rows.stop - rows.start for rows in pending)
    with counted(progress, "merge, clips", total=clips, done=done) as count:
        for rows in pending:
            arrays, failures = _shard(plan, rows, declared)
            out.write(rows, arrays, failures=failures)
            count(rows.stop - rows.start)
    if [dataclasses.asdict(failure) for failure in out.failures] != plan.failures:
        raise StoreError(
            f"an unfinished build of {plan.reference}, in which other clips failed, lies in the way; remove it with "
            "avvp-pipe gc --leftovers, and merge again"
        )


def _shard(plan: MergePlan, rows: slice, names: Sequence[str]) -> tuple[dict[str, NDArray[Any]], list[Failure]]:
    """One shard of the whole, out of the parts that it lies in. A part's failures stand in the order of its rows."""
    pieces: list[tuple[Artifact, slice]] = []
    for one, mine in zip(plan.parts, plan.rows, strict=True):
        start, stop = max(rows.start, mine.start), min(rows.stop, mine.stop)
        if start < stop:
            pieces.append((one.artifact, slice(start - mine.start, stop - mine.start)))
    arrays = {name: np.concatenate([artifact.rows(name, piece) for artifact, piece in pieces]) for name in names}
    failures = []
    for artifact, piece in pieces:
        clips = set(artifact.strings("video_ids")[piece])
        failures += [Failure(**one) for one in artifact.provenance["failures"] if one["video_id"] in clips]
    return arrays, failures


def _request(store: Store, plan: MergePlan) -> Request:
    """The step over all clips, as if it had been asked for here: parameters and inputs as they were for a part."""
    name = Reference(plan.reference.kind, plan.reference.name)
    known = store.request(name)
    if known and known.key == plan.identity.key:
        return known
    here = [one for one in plan.parts if one.store.root == store.root]
    donor = (here or list(plan.parts))[0]
    asked = step_of(donor.artifact, donor.store)
    inputs = {role: _as_asked(store, artifact, asked.inputs.get(role, "")) for role, artifact in plan.inputs.items()}
    return Request(plan.stage.name, {**asked.params, "shard": ""}, inputs, plan.identity.key)


def _as_asked(store: Store, artifact: Artifact, text: str) -> str:
    """How an input is named in a request: as it was, if that means the same artifact in this store."""
    try:
        named = store.find(parse_reference(text, kind=artifact.kind)) if text else None
    except StoreError:
        named = None
    if named and named.key == artifact.key:
        return text
    plain = Reference(artifact.kind, artifact.name)
    current = store.find(plain)
    return str(plain if current and current.key == artifact.key else artifact.reference)


def _settle_requests(store: Store, plan: MergePlan) -> None:
    """Let `status` speak of the whole and no longer of the parts, which nobody needs any more."""
    for one in plan.parts:
        if one.store.root == store.root:
            store.forget(Reference(one.artifact.kind, one.artifact.name))
