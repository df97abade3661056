"""Finding the parts that make one artifact, `llp.1-of-4` to `llp.4-of-4`, in one store or several.

A part counts where it is what was last asked for under its name, and finished. Of several sets (2 parts, 4 parts)
the complete one is taken.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from avvp_pipe.pipeline.catalogue import STAGES
from avvp_pipe.pipeline.commands import command_line, step_of
from avvp_pipe.pipeline.names import part_called, part_name
from avvp_pipe.stages.clips.parts import Part
from avvp_pipe.stages.stage import Stage
from avvp_pipe.store import Artifact, Reference, Store, StoreError, differences
from avvp_pipe.store.integrity import nodes_of

__all__ = ["FoundPart", "find_parts", "stages_in_parts"]

SHOWN_MISSING = 20


@dataclass(frozen=True, slots=True)
class FoundPart:
    """One finished part, and where it was found."""

    part: Part
    artifact: Artifact
    store: Store

    def __str__(self) -> str:
        return f"part {self.part} ({self.artifact.reference} in {self.store.root})"


def stages_in_parts() -> dict[str, Stage]:
    """Kind -> the stage that can make a part of it."""
    made = [stage for stage in STAGES.values() if _has_shard(stage)]
    return {stage.kind: stage for stage in made}


def _has_shard(stage: Stage) -> bool:
    return any(field.name == "shard" for field in dataclasses.fields(stage.params))


def find_parts(stores: Sequence[Store], whole: Reference) -> tuple[tuple[FoundPart, ...], tuple[str, ...]]:
    """All parts of `whole`, in order, and what was left out of account, in words.

    Raises StoreError where parts are missing (with the commands that make them), where two that differ claim the
    same place, and where a store after the first holds none.
    """
    found: dict[Part, FoundPart] = {}
    for place, store in enumerate(stores):
        here = list(_parts_in(store, whole))
        if place and not here:
            raise StoreError(
                f"--from {store.root} holds no finished part of {whole}; is it a store, and the right one?"
            )
        for one in here:
            if one.part in found:
                _check_same(found[one.part], one)
            found.setdefault(one.part, one)
    count = _complete_count(stores, whole, found)
    others = [one for part, one in sorted(found.items(), key=_by_place) if part.count != count]
    notes = tuple(f"{one} is left out: it is one of {one.part.count}, and all {count} are there" for one in others)
    return tuple(found[Part(index, count)] for index in range(1, count + 1)), notes


def _by_place(item: tuple[Part, FoundPart]) -> tuple[int, int]:
    return item[0].count, item[0].index


def _parts_in(store: Store, whole: Reference) -> Iterator[FoundPart]:
    for name in store.place.folders(whole.kind):
        part = part_called(name, whole=whole.name)
        reference = Reference(whole.kind, name)
        artifact = store.find(reference) if part else None
        if part is None or artifact is None:
            continue
        request = store.request(reference)
        if request and request.key != artifact.key:
            continue  # something else was asked for since, and is not finished
        if artifact.identity.params.get("shard") != str(part):
            came = artifact.identity.params.get("shard") or "the whole"
            raise StoreError(f"{artifact.reference} in {store.root} is called part {part}, but is {came}; name it anew")
        yield FoundPart(part, artifact, store)


def _check_same(one: FoundPart, other: FoundPart) -> None:
    """Raise StoreError where two artifacts claim the same place and do not hold the same arrays."""
    if nodes_of(one.artifact.attrs) == nodes_of(other.artifact.attrs) and one.artifact.key == other.artifact.key:
        return
    lines = differences(one.artifact.identity, other.artifact.identity) or ("their bytes differ",)
    raise StoreError(f"{one} and {other} are two different ones: {'; '.join(lines)}. Leave one of the stores out")


def _complete_count(stores: Sequence[Store], whole: Reference, found: Mapping[Part, FoundPart]) -> int:
    counts = sorted({part.count for part in found})
    lacking = {count: [one for one in _places(count) if one not in found] for count in counts}
    complete = [count for count in counts if not lacking[count]]
    if len(complete) == 1:
        return complete[0]
    where = " and ".join(str(store.root) for store in stores)
    if complete:
        sets = " and ".join(f"all {count}" for count in complete)
        goner = part_name(whole.name, f"1/{complete[0]}")
        raise StoreError(
            f"{where} holds {sets} parts of {whole}; remove a part of the set that is not meant: "
            f"avvp-pipe gc {whole.kind}/{goner}"
        )
    if not counts:
        example = f"{stages_in_parts()[whole.kind].example} --shard 1/4 --name {whole.name}"
        raise StoreError(f"no finished part of {whole} in {where}; {example} makes the first of four")
    lines = [line for count in counts for line in _missing(whole, found, lacking[count])]
    raise StoreError(f"parts of {whole} are missing in {where}:\n" + "\n".join(lines))


def _places(count: int) -> list[Part]:
    return [Part(index, count) for index in range(1, count + 1)]


def _missing(whole: Reference, found: Mapping[Part, FoundPart], lacking: Sequence[Part]) -> list[str]:
    """One line a part, with the command that makes it, taken from a part of its set that is there."""
    donor = next(one for part, one in sorted(found.items(), key=_by_place) if part.count == lacking[0].count)
    step = step_of(donor.artifact, donor.store)
    lines = []
    for part in lacking[:SHOWN_MISSING]:
        params = {**step.params, "shard": str(part)}
        wanted = dataclasses.replace(step, name=part_name(whole.name, str(part)), params=params)
        lines.append(f"  {part}: {command_line(wanted, donor.store)}")
    return lines + ([f"  … and {len(lacking) - SHOWN_MISSING} more"] if len(lacking) > SHOWN_MISSING else [])
