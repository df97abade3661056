"""Whether parts make one whole: what a merge would build of them, told from records alone."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from avvp_pipe.pipeline.part_search import FoundPart, find_parts, stages_in_parts
from avvp_pipe.pipeline.runner import joined_software
from avvp_pipe.stages.digests import combined_digest
from avvp_pipe.stages.stage import Stage
from avvp_pipe.store import Artifact, Identity, Reference, Store, StoreError, differences, parse_reference
from avvp_pipe.store.integrity import nodes_of

__all__ = ["TEXTS", "MergePlan", "check_alike", "plan_merge", "software_of"]

TEXTS = ("text_visual/", "text_audio/")
"""Arrays that every part holds whole."""


@dataclass(frozen=True, slots=True)
class MergePlan:
    """What a merge would make of which parts. Made of records alone."""

    reference: Reference
    """With the key of the whole."""
    identity: Identity
    stage: Stage
    inputs: Mapping[str, Artifact]
    """What the parts were made from, as it is in the store."""
    parts: tuple[FoundPart, ...]
    rows: tuple[slice, ...]
    """Of each part."""
    notes: tuple[str, ...]

    @property
    def failures(self) -> list[dict[str, str]]:
        """Clips that failed in the parts, in the order of their rows."""
        return [dict(failure) for one in self.parts for failure in one.artifact.provenance["failures"]]


def plan_merge(store: Store, text: str, others: Sequence[Store] = ()) -> MergePlan:
    """Find the parts of what `text` (kind/name) means, in `store` and `others`, and hold them against each other.

    Raises StoreError where parts are missing, do not belong together, or do not cover the dataset, and where `store`
    lacks what they were made from.
    """
    whole = parse_reference(text)
    stages = stages_in_parts()
    if whole.kind not in stages or whole.version:
        raise StoreError(f"{text!r} cannot be merged; wanted KIND/NAME, with a kind out of {', '.join(stages)}")
    stage = stages[whole.kind]
    parts, notes = find_parts((store, *others), whole)
    for one in parts[1:]:
        check_alike(parts[0], one)
    first = parts[0].artifact.identity
    if (first.stage, first.version) != (stage.name, stage.version):
        raise StoreError(
            f"the parts of {whole} were made by {first.stage} version {first.version}, and this program has "
            f"{stage.name} version {stage.version}; make them again, or merge with the program that made them"
        )
    inputs = _inputs(store, parts)
    rows = _rows(parts, inputs["dataset"])
    identity = _whole(parts)
    reference = Reference(whole.kind, whole.name, identity.key)
    return MergePlan(reference, identity, stage, inputs, parts, rows, (*notes, *_software_notes(parts)))


def _inputs(store: Store, parts: Sequence[FoundPart]) -> dict[str, Artifact]:
    """What the parts were made from. Of a dataset the key tells all; its bytes also say where it lies on a machine."""
    found: dict[str, Artifact] = {}
    for role, text in parts[0].artifact.provenance["inputs"].items():
        wanted = parse_reference(text)
        alike = (one for one in store.artifacts() if (one.kind, one.key) == (wanted.kind, wanted.version))
        artifact = store.find(wanted) or next(alike, None)
        if artifact is None:
            raise StoreError(
                f"the parts were made from {text}, which is not in {store.root}; make it there first, or merge in the "
                "store that has it"
            )
        found[role] = artifact
        for one in parts:
            read = one.artifact.provenance.get("input_digests", {}).get(role, artifact.digest)
            if wanted.kind != "dataset" and read != artifact.digest:
                raise StoreError(
                    f"{one} was made from {text}, of which {store.root} holds other bytes (its failed clips were tried "
                    "again, or it was built anew); make the part again"
                )
    return found


def _rows(parts: Sequence[FoundPart], dataset: Artifact) -> tuple[slice, ...]:
    """The rows of each part. Raises StoreError where one does not hold just these clips, or not what its key says."""
    names = dataset.strings("video_ids")
    found = []
    for one in parts:
        rows, artifact = one.part.rows(len(names)), one.artifact
        if artifact.strings("video_ids") != names[rows]:
            raise StoreError(f"{one} does not hold the clips {rows.start} to {rows.stop} of {dataset.reference}")
        digests = zip(names[rows], artifact.strings("video_digests"), strict=True)
        if artifact.identity.sources.get("videos") not in (None, combined_digest(digests)):
            raise StoreError(f"videos of {one} were changed while it was made; make it again with --force")
        found.append(rows)
    return tuple(found)


def _whole(parts: Sequence[FoundPart]) -> Identity:
    """The identity of what one run over all clips makes."""
    bare = _without_part(parts[0].artifact.identity)
    if "videos" not in parts[0].artifact.identity.sources:
        return bare
    names = [name for one in parts for name in one.artifact.strings("video_ids")]
    digests = [digest for one in parts for digest in one.artifact.strings("video_digests")]
    combined = combined_digest(zip(names, digests, strict=True))
    return dataclasses.replace(bare, sources={**bare.sources, "videos": combined})


def software_of(parts: Sequence[FoundPart]) -> dict[str, str]:
    """Package -> version that computed the parts; several where they differ."""
    return joined_software([one.artifact.provenance["software"] for one in parts])


def _software_notes(parts: Sequence[FoundPart]) -> list[str]:
    told = [f"{name} {versions}" for name, versions in software_of(parts).items() if " and " in versions]
    return [f"the parts were made with different software ({', '.join(told)}): last bits may differ"] if told else []


def _without_part(identity: Identity) -> Identity:
    """An identity with what is a part's own taken out: its place, and the digest of its videos."""
    sources = {name: digest for name, digest in identity.sources.items() if name != "videos"}
    return dataclasses.replace(identity, params={**identity.params, "shard": ""}, sources=sources)


def check_alike(first: FoundPart, other: FoundPart) -> None:
    """Raise StoreError, saying what differs, where two parts do not belong to one whole."""
    one, two = first.artifact, other.artifact
    lines = list(differences(_without_part(one.identity), _without_part(two.identity)))
    names = sorted({*one.described, *two.described})
    lines += [f"attribute {name} differs" for name in names if one.described.get(name) != two.described.get(name)]
    if one.array_names() != two.array_names():
        lines.append(f"arrays: {', '.join(one.array_names())} -> {', '.join(two.array_names())}")
    if lines or (lines := [f"array {name} {why}" for name, why in _unlike_arrays(one, two)]):
        raise StoreError(
            f"{other} does not fit {first}: {'; '.join(lines)}. Make one of them again like the others, or leave its "
            "store out"
        )


def _unlike_arrays(one: Artifact, two: Artifact) -> Iterator[tuple[str, str]]:
    first, second = (nodes_of(artifact.attrs) or {} for artifact in (one, two))
    for name in one.array_names():
        facts, others = one.facts(name), two.facts(name)
        if (facts.dtype, facts.shape[1:]) != (others.dtype, others.shape[1:]):
            yield name, f"is {facts.dtype} {facts.shape[1:]} a clip there, {others.dtype} {others.shape[1:]} here"
        elif name.startswith(TEXTS) and first.get(name) != second.get(name):
            yield name, "has other bytes: the same texts came out otherwise on that machine"
