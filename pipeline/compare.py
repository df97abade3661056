"""Methods side by side: mean and spread over seeds, and paired differences with their interval and p.

    references (scores, labels, parsers, predictions) -> methods, each of one or several runs -> Comparison

What labels the clips' seconds, and what was scored, is found through the artifacts' records. All methods are scored on
the same clips: those of the split whose seconds are labelled and that failed in none of them.
"""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.rows import JOINT, OK, SEPARATE, check_same_clips
from avvp_pipe.stages.stage import ParameterError
from avvp_pipe.store import Artifact, Store, StoreError
from avvp_pipe.store.opening import open_artifact

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.paired_bootstrap import Difference
    from avvp_pipe.stages.metrics import LabelCounts

__all__ = ["Apart", "Comparison", "Method", "compare_methods", "grouped"]

METRICS = ("A", "V", "AV", "Type", "Event")
LEVELS = ("segment", "event")
SCORED = ("labels", "parser", "predictions")
SEED = re.compile(r"[-_.]seed-?\d+$")
Pooling = Literal["official", "micro", "class-macro"]


@dataclass(frozen=True, slots=True)
class Method:
    """One method: its runs, and what each scored."""

    name: str
    references: tuple[str, ...]
    scores: Mapping[str, Mapping[str, tuple[float, ...]]]
    """Level -> metric -> percent of each run."""

    def mean(self, level: str, metric: str) -> float:
        """Over the runs."""
        return statistics.fmean(self.scores[level][metric])

    def deviation(self, level: str, metric: str) -> float | None:
        """Standard deviation of a sample (n - 1) over the runs; None of a single one."""
        values = self.scores[level][metric]
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, slots=True)
class Apart:
    """How far a method lies from the one that all are held against."""

    method: str
    level: str
    metric: str
    found: "Difference"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came out."""

    dataset: str
    split: str
    clips: int
    left_out: int
    """Clips that failed in one of the methods, and count in none."""
    pooling: str
    resamples: int
    seed: int
    against: str
    metrics: tuple[str, ...]
    methods: tuple[Method, ...]
    differences: tuple[Apart, ...]


def grouped(references: Sequence[str], groups: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Method -> references. Those whose names end in -seedN are one method; groups: NAME=REF,REF….

    Raises ParameterError for a group of another form, and for a method that is named twice.

    >>> grouped(["parser/a-seed1", "parser/a-seed2", "labels/b"], ["c=scores/x,scores/y"])
    {'parser/a': ('parser/a-seed1', 'parser/a-seed2'), 'labels/b': ('labels/b',), 'c': ('scores/x', 'scores/y')}
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in references:
        path, at, version = text.partition("@")
        base = SEED.sub("", path)
        name = base if base != path else path + at + version
        found[name] = (*found.get(name, ()), text)
    for group in groups:
        name, equals, listed = group.partition("=")
        parts = tuple(part.strip() for part in listed.split(",") if part.strip())
        if not (name and equals and parts):
            raise ParameterError(f"--group {group!r} is not NAME=REFERENCE,REFERENCE…; such as uwav=parser/a,parser/b")
        if name in found:
            raise ParameterError(f"two methods are called {name!r}; give the group another name")
        found[name] = parts
    doubles = [text for texts in found.values() for text in texts if sum(t.count(text) for t in found.values()) > 1]
    if doubles:
        raise ParameterError(f"{doubles[0]} is given twice; give each reference once")
    return found


def compare_methods(
    store: Store,
    methods: Mapping[str, Sequence[str]],
    *,
    split: str = "test",
    pooling: Pooling = "official",
    against: str | None = None,
    dataset: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Score all methods on the same clips, and hold each against one: `against`, else the first.

    dataset: whose labels are the truth; left out, the one that the first was scored on or made of.
    Raises StoreError for artifacts of other clips or classes, and ParameterError where nothing is to be compared.
    """
    from avvp_pipe.stages.blocks.paired_bootstrap import clip_draws, paired_difference, resampled_scores
    from avvp_pipe.stages.metrics import scores_of

    if len(methods) < 2:
        raise ParameterError("there is one method only; name two or more, or put its rivals into --group")
    base = against or next(iter(methods))
    if base not in methods:
        raise ParameterError(f"--against {base!r} is none of the methods; they are {', '.join(methods)}")
    runs = {name: [_predictions(store, text) for text in texts] for name, texts in methods.items()}
    truth = _truth(store, dataset, next(iter(methods.values()))[0])
    rows, left_out, joint = _rows(truth, [one for several in runs.values() for one in several], split)
    counts = {name: [_counts(truth, one, rows, joint) for one in several] for name, several in runs.items()}
    metrics = ("AV",) if joint else METRICS
    scored = {name: [scores_of(one, pooling) for one in several] for name, several in counts.items()}
    found = tuple(
        Method(name, tuple(methods[name]), {
            level: {metric: tuple(one[level][metric] for one in several) for metric in metrics} for level in LEVELS
        })
        for name, several in scored.items()
    )  # fmt: skip
    draws = clip_draws(len(rows), resamples, seed=seed)
    drawn = {
        name: {
            level: _averaged([resampled_scores(_kept(one[level], joint), draws, pooling) for one in several])
            for level in LEVELS
        }
        for name, several in counts.items()
    }
    by_name = {one.name: one for one in found}
    differences = tuple(
        Apart(name, level, metric, paired_difference(
            drawn[name][level][metric],
            drawn[base][level][metric],
            difference=by_name[name].mean(level, metric) - by_name[base].mean(level, metric),
        ))
        for name in methods if name != base for level in LEVELS for metric in metrics
    )  # fmt: skip
    facts = (str(truth.reference), split, len(rows), left_out, pooling, resamples, seed, base, metrics)
    return Comparison(*facts, found, differences)


def _kept(counts: "Mapping[str, Any]", joint: bool) -> dict[str, Any]:
    return {name: one for name, one in counts.items() if name == "AV" or (not joint and name in METRICS)}


def _averaged(several: Sequence[Mapping[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
    """The mean over the runs of a method, draw by draw."""
    return {metric: np.mean([one[metric] for one in several], axis=0) for metric in several[0]}


def _predictions(store: Store, text: str) -> Artifact:
    """What is scored: the artifact itself, or what the scores are of."""
    artifact = open_artifact(text, store)
    if artifact.kind == "scores":
        return _input(store, artifact, "predictions")
    if artifact.kind not in SCORED:
        raise StoreError(f"{artifact.reference} cannot be scored; wanted scores, {' or '.join(SCORED)}")
    if "audio_hard" not in artifact:
        raise StoreError(
            f"{artifact.reference} holds a parser and nothing that it predicted, as imported ones do; compare what "
            "`avvp-pipe parse` makes with it"
        )
    return artifact


def _input(store: Store, artifact: Artifact, role: str) -> Artifact:
    text = artifact.provenance["inputs"].get(role)
    if not text:
        raise StoreError(f"{artifact.reference} does not say which {role} it was made of")
    return store.get(text)


def _truth(store: Store, given: str | None, first: str) -> Artifact:
    if given:
        return store.get(given, kind="dataset")
    artifact = open_artifact(first, store)
    for _ in range(8):  # scores -> predictions -> features -> dataset
        inputs = artifact.provenance["inputs"]
        if "dataset" in inputs:
            return store.get(inputs["dataset"])
        nearer = next((inputs[role] for role in ("features", "predictions", "labels") if role in inputs), None)
        if nearer is None:
            break
        artifact = store.get(nearer)
    raise StoreError(f"{first} does not tell which dataset it is of; name it: --dataset NAME")


def _rows(truth: Artifact, runs: Sequence[Artifact], split: str) -> tuple[NDArray[np.intp], int, bool]:
    """Rows of the split whose seconds are labelled and that failed in no run; how many failed; whether jointly."""
    classes = list(truth.attrs["classes"])
    for one in runs:
        check_same_clips(truth, one)
        if list(one.attrs.get("classes", ())) != classes or one.facts("audio_hard").shape != truth.facts("audio").shape:
            raise StoreError(
                f"{one.reference} and {truth.reference} have other classes or lengths; "
                "compare artifacts that were made from one dataset"
            )
    splits, dense = np.array(truth.strings("splits"), dtype=str), truth.array("dense")
    for code in (SEPARATE, JOINT):
        labelled = (splits == split) & (dense == code)
        sound = labelled & np.all([one.array("status") == OK for one in runs], axis=0)
        if sound.any():
            return np.flatnonzero(sound), int(labelled.sum() - sound.sum()), code == JOINT
    known = sorted(set(splits[dense > 0].tolist()))
    raise ParameterError(
        f"{truth.reference} has no clips in the split {split!r} whose seconds are labelled; it has them in "
        f"{', '.join(known) or 'none'}: --split"
    )


def _counts(truth: Artifact, run: Artifact, rows: NDArray[np.intp], joint: bool) -> "LabelCounts":
    from avvp_pipe.stages.metrics import label_counts
    from avvp_pipe.store.rows import take_rows

    heard, seen = (take_rows(run, f"{modality}_hard", rows) for modality in ("audio", "visual"))
    if joint:
        heard = seen = heard & seen
    names = ("audio_visual", "audio_visual") if joint else ("audio", "visual")
    true = [take_rows(truth, name, rows) for name in names]
    return label_counts(heard, seen, true[0], true[1], truth.array("lengths")[rows])
