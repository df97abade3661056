"""Which artifacts a report shows: those asked for, what they were made of, and their scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from avvp_pipe.store import KINDS, Artifact, Reference, Store, StoreError, parse_reference
from avvp_pipe.store.lineage import Node, lineage
from avvp_pipe.store.opening import open_artifact

__all__ = ["LABELLED", "Subjects", "subjects_of"]

ELSEWHERE = ("generator", "second_generator", "parser")
"""Roles of inputs that may be of other clips than those that the artifact is about."""
MADE_OF_DATASET = ("thresholds", "labels", "parser", "predictions")
LABELLED = ("labels", "parser", "predictions")


@dataclass(frozen=True, slots=True)
class Subjects:
    """The artifacts of one report, each once, in the pipeline's order."""

    artifacts: tuple[Artifact, ...]
    nodes: tuple[Node, ...]
    """They and all that they come from, as their records tell."""
    dataset: Artifact | None
    """Whose clips are shown; None where the store does not have it."""
    about: frozenset[str]
    """References of the artifacts that are about its clips."""

    def of(self, *kinds: str) -> tuple[Artifact, ...]:
        """Those of some kinds."""
        return tuple(one for one in self.artifacts if one.kind in kinds)

    def sets(self) -> tuple[Artifact, ...]:
        """Those that say of the clips shown which events are heard and seen."""
        return tuple(one for one in self.of(*LABELLED) if str(one.reference) in self.about and "audio_hard" in one)


def subjects_of(store: Store, references: Sequence[str]) -> Subjects:
    """Open what is named and gather what belongs to it.

    A dataset brings the newest of each name that was made of it. Raises StoreError where nothing is named, or where
    what is named is about the clips of different datasets.
    """
    if not references:
        raise StoreError("a report of what? name labels, scores, a parser, or a dataset to see all that was made of it")
    given = [open_artifact(text, store) for text in dict.fromkeys(references)]
    home = _home(store, given)
    if any(one.kind == "dataset" for one in given):
        given += _made_of(store, home)
    nodes = _nodes(store, given)
    found = {str(one.reference): one for one in given}
    for node in nodes.values():
        if artifact := store.find(node.stored_as or node.reference):
            found.setdefault(str(artifact.reference), artifact)
    for scores in _scores_of(store, found):
        if str(scores.reference) not in found:
            nodes.update(_nodes(store, [scores]))
            found[str(scores.reference)] = scores
    about = {text for text, one in found.items() if _dataset_of(store, one) == home}
    dataset = None if home is None else store.find(home)
    return Subjects(_ordered(found.values()), tuple(nodes.values()), dataset, frozenset(about))


def _home(store: Store, given: Iterable[Artifact]) -> Reference | None:
    """The dataset that everything named is about."""
    homes: dict[Reference, str] = {}
    for one in given:
        if (home := _dataset_of(store, one)) is not None:
            homes.setdefault(home, str(one.reference))
    if len(homes) > 1:
        told = "; ".join(f"{text} is about {home}" for home, text in homes.items())
        raise StoreError(f"one report shows the clips of one dataset, but {told}. Make a report of each")
    return next(iter(homes), None)


def _dataset_of(store: Store, artifact: Artifact) -> Reference | None:
    """The dataset whose clips an artifact is about, by the records; None where they do not tell."""
    if artifact.kind == "dataset":
        return artifact.reference
    if artifact.kind == "generator":
        return None  # about clips of another set
    waiting, seen = [artifact.provenance], set()
    while waiting:
        record = waiting.pop(0)
        for role, text in record["inputs"].items():
            reference = parse_reference(text)
            if role in ELSEWHERE or reference in seen:
                continue
            seen.add(reference)
            if reference.kind == "dataset":
                return reference
            if made := store.find(reference):
                waiting.append(made.provenance)
    return None


def _made_of(store: Store, home: Reference | None) -> list[Artifact]:
    newest = {}
    for one in store.artifacts():
        if one.kind in MADE_OF_DATASET and _dataset_of(store, one) == home:
            newest[one.kind, one.name] = one  # they come by age
            if asked := store.find(Reference(one.kind, one.name)):
                newest[one.kind, one.name] = asked if _dataset_of(store, asked) == home else one
    return list(newest.values())


def _nodes(store: Store, artifacts: Iterable[Artifact]) -> dict[Reference, Node]:
    nodes: dict[Reference, Node] = {}
    for one in artifacts:
        for node in lineage(store, one).nodes:
            nodes.setdefault(node.reference, node)
    return nodes


def _scores_of(store: Store, found: dict[str, Artifact]) -> list[Artifact]:
    """The newest scores of each set of labels that is shown, unless some were named."""
    named = {one.provenance["inputs"].get("predictions") for one in found.values() if one.kind == "scores"}
    newest: dict[str, Artifact] = {}
    for one in sorted((one for one in store.artifacts() if one.kind == "scores"), key=store.finished):
        of = one.provenance["inputs"].get("predictions")
        if of in found and of not in named:
            newest[of] = one
    return list(newest.values())


def _ordered(artifacts: Iterable[Artifact]) -> tuple[Artifact, ...]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return tuple(sorted(artifacts, key=lambda one: (order.get(one.kind, len(order)), one.name, one.key)))
