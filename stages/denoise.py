"""Stage `denoise`: labels, and a parser that was trained on them; the labels at which it stumbles come out flipped.

    labels (N, T, C), parser's probabilities (N, T, C) -> hard: flipped; soft: 1 - soft where flipped

Pseudo-label denoising (PLD) of VPLAN with the settings of VALOR, appendix D; the rule is in `generators/pld.py`. To
repeat the papers, train a parser on labels, denoise them with it, and train another one on what comes out.

Takes any labels. Logits and thresholds are left out: they no longer say what the labels say. Cells outside the weak
label stay as they are, and so do clips that failed, in the labels or in the parser.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.rows import OK, check_same_clips, put_clips
from avvp_pipe.stages.stage import Inputs, Progress, Reads, Stage, option
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact, Builder

CLIPS_AT_ONCE = 1024
MODALITIES = ("audio", "visual")
Counts = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Params:
    """How much more than usual a loss must be. Defaults: VALOR, appendix D."""

    method: Literal["pld"] = option("pld", "How labels are denoised.")
    modalities: Literal["both", "audio", "visual"] = option("both", "Whose labels may be flipped.")
    audio_smallest: Annotated[int, Field(ge=1)] = option(10, "K: the usual loss is the mean of the K smallest.")
    audio_factor: Annotated[float, Field(gt=0)] = option(10.0, "Labels flip whose loss is above so many usual ones.")
    visual_smallest: Annotated[int, Field(ge=1)] = option(4, "K, for what is seen.")
    visual_factor: Annotated[float, Field(gt=0)] = option(6.0, "The factor, for what is seen.")
    only_disagreeing: bool = option(False, "Ours: flip only what the parser itself calls otherwise.")


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Flip shard by shard; count what was flipped in all of them."""
    labels, parser = inputs["labels"], inputs["parser"]
    classes = _check(labels, parser)
    lengths = _lengths(labels, parser, progress)
    _tell_training(labels, parser, progress)
    idle = {modality: _idle(lengths, modality, params, progress) for modality in _chosen(params)}
    put_clips(out, labels)
    out.put("status", labels.array("status"))
    for modality in MODALITIES:
        shape = labels.facts(f"{modality}_hard").shape
        out.declare(f"{modality}_hard", shape, "bool")
        out.declare(f"{modality}_soft", shape, "float32", compressed=True)
    counts = {modality: _Tally(len(classes)) for modality in _chosen(params)}
    blocks = list(_blocks(len(lengths), list(out.pending())))
    for rows, missing in progress.track(blocks, total=len(blocks), label="denoise"):
        made = _denoised(labels, parser, rows, lengths, counts, params)
        if missing:
            out.write(rows, made)
    flipped = {modality: tally.counts(classes) | idle[modality] for modality, tally in counts.items()}
    _tell_flips(flipped, params, progress)
    out.describe(classes=classes, method=f"{labels.attrs.get('method', labels.name)} + pld", flipped=flipped)
    if "weak_filter" in labels.attrs:  # where a label could be
        out.describe(weak_filter=labels.attrs["weak_filter"])


class _Tally:
    """How many labels of one modality were flipped."""

    def __init__(self, classes: int) -> None:
        self.by_class = np.zeros(classes, np.int64)
        self.to_on = self.against_parser = 0

    def add(self, flips: NDArray[np.bool_], hard: NDArray[np.bool_], probabilities: NDArray[Any]) -> None:
        self.by_class += flips.sum(axis=(0, 1))
        self.to_on += int((flips & ~hard).sum())
        self.against_parser += int((flips & ((probabilities > 0.5) == hard)).sum())

    def counts(self, classes: list[str]) -> Counts:
        """As JSON; `against_parser`: those that the parser called as the old label did."""
        return {
            "cells": int(self.by_class.sum()),
            "to_on": self.to_on,
            "to_off": int(self.by_class.sum()) - self.to_on,
            "against_parser": self.against_parser,
            "by_class": dict(zip(classes, self.by_class.tolist(), strict=True)),
        }


def _denoised(
    labels: "Artifact",
    parser: "Artifact",
    rows: slice,
    lengths: NDArray[Any],
    counts: dict[str, _Tally],
    params: Params,
) -> dict[str, NDArray[Any]]:
    """The labels of some clips as they come out; flips are added to `counts`."""
    from avvp_pipe.stages.generators.pld import flipped, mirrored

    made: dict[str, NDArray[Any]] = {}
    weak = labels.rows("weak", rows)
    for modality in MODALITIES:
        hard, soft = (labels.rows(f"{modality}_{which}", rows) for which in ("hard", "soft"))
        if modality in counts:
            probabilities = parser.rows(f"{modality}_probs", rows)
            disagreeing = params.only_disagreeing
            rule = _rule(modality, params)
            flips = flipped(hard, probabilities, weak, lengths[rows], **rule, only_disagreeing=disagreeing)
            counts[modality].add(flips, hard, probabilities)
            hard = hard ^ flips
            soft = np.where(flips, mirrored(soft, hard), soft)
        made |= {f"{modality}_hard": hard, f"{modality}_soft": soft}
    return made


def _blocks(clips: int, pending: list[slice]) -> Iterator[tuple[slice, bool]]:
    """All rows in order: shards that are still to be written, and between them what a killed run has written already.

    >>> [(rows.start, rows.stop, missing) for rows, missing in _blocks(30, [slice(20, 30)])]
    [(0, 20, False), (20, 30, True)]
    """
    reached = 0
    for shard in (*pending, slice(clips, clips)):
        for start in range(reached, shard.start, CLIPS_AT_ONCE):
            yield slice(start, min(start + CLIPS_AT_ONCE, shard.start)), False
        if shard.start < shard.stop:
            yield shard, True
        reached = shard.stop


def _chosen(params: Params) -> tuple[str, ...]:
    return MODALITIES if params.modalities == "both" else (params.modalities,)


def _rule(modality: str, params: Params) -> dict[str, Any]:
    return {name: getattr(params, f"{modality}_{name}") for name in ("smallest", "factor")}


def _check(labels: "Artifact", parser: "Artifact") -> list[str]:
    """The classes. Raises StoreError where the parser has other clips, seconds or classes than the labels."""
    check_same_clips(labels, parser)
    classes, parsed = (list(one.attrs["classes"]) for one in (labels, parser))
    if classes != parsed:
        differing = next((pair for pair in zip(classes, parsed, strict=False) if pair[0] != pair[1]), None)
        how = (
            f"{differing[0]!r} where it has {differing[1]!r}" if differing else f"{len(classes)}, it has {len(parsed)}"
        )
        raise StoreError(
            f"{parser.reference} parses other classes, or in another order, than {labels.reference} labels ({how}); "
            "denoise with a parser that was trained on these labels"
        )
    for modality in MODALITIES:
        labelled, found = labels.facts(f"{modality}_hard").shape, parser.facts(f"{modality}_probs").shape
        if labelled != found:
            raise StoreError(
                f"{labels.reference} labels {labelled} clips, seconds and classes, but {parser.reference} parses "
                f"{found}; denoise with a parser that was trained on these labels"
            )
    return classes


def _lengths(labels: "Artifact", parser: "Artifact", progress: Progress) -> NDArray[np.int64]:
    """(N,) seconds of each clip, 0 where it failed. Raises StoreError where the parser saw other lengths."""
    lengths: NDArray[np.int64] = labels.array("lengths").astype(np.int64)
    if not np.array_equal(lengths, parser.array("lengths")):
        row = int(np.flatnonzero(lengths != parser.array("lengths"))[0])
        raise StoreError(
            f"{labels.strings('video_ids')[row]} has {lengths[row]} seconds in {labels.reference}, but "
            f"{parser.array('lengths')[row]} in {parser.reference}; denoise with a parser trained on these labels"
        )
    labelled, parsed = labels.array("status") == OK, parser.array("status") == OK
    if unparsed := int((labelled & ~parsed).sum()):
        progress.note(f"{unparsed} clips that {parser.reference} could not parse keep their labels")
    return np.where(labelled & parsed, lengths, 0)


def _tell_training(labels: "Artifact", parser: "Artifact", progress: Progress) -> None:
    taught = parser.provenance["inputs"].get("labels", "no labels of seconds")
    if taught.rpartition("@")[2] != labels.key:
        progress.note(
            f"{parser.reference} was trained on {taught}, not on {labels.reference}; PLD takes a parser trained on "
            "the labels that it denoises"
        )


def _idle(lengths: NDArray[np.int64], modality: str, params: Params, progress: Progress) -> Counts:
    """Tell where the settings can change nothing: in how many clips."""
    from avvp_pipe.stages.generators.pld import cannot_flip

    rule, there = _rule(modality, params), lengths[lengths > 0]
    idle = int(cannot_flip(there, **rule).sum())
    if idle:
        of_them = "any clip" if idle == len(there) else f"{idle} of {len(there)} clips"
        progress.note(
            f"{modality}: these settings cannot change a label of {of_them}: in up to {int(min(rule.values()))} "
            f"seconds, {rule['factor']:g} times the mean of the {rule['smallest']} smallest losses is at least the sum "
            f"of all, which none exceeds; take a lower --{modality}-smallest or --{modality}-factor"
        )
    return {"clips_that_cannot_change": idle}


def _tell_flips(flipped: dict[str, Counts], params: Params, progress: Progress) -> None:
    for modality, counts in flipped.items():
        shared = counts["against_parser"]
        told = f", {shared} of them although the parser agreed with the label (--only-disagreeing leaves those)"
        progress.note(f"{modality}: {counts['cells']} labels flipped{told if shared else ''}")


STAGE = Stage(
    name="denoise",
    kind="labels",
    version=1,
    summary="Flip labels at which a parser trained on them stumbles (PLD of VPLAN and VALOR).",
    reads={
        "labels": Reads("labels", "Labels to denoise."),
        "parser": Reads("parser", "A parser that was trained on them."),
    },
    params=Params,
    run=run,
    shard_rows=1024,
    example="avvp-pipe denoise --labels labels/mine-uwav --parser parser/mine-uwav",
)
