"""Stage `calibrate`: on validation clips, whose seconds are labelled, the threshold of best F1 for every class.

    logits (M, T, C) of a method, dense labels (M, T, C), weak labels (M, C) -> audio (C,), visual (C,)

The whole curve of F1 over thresholds is kept beside the chosen point; `--bootstrap` says how far the point would move
had other clips been labelled. UWAV's released search, with the guards that `blocks/best_f1.py` lists at its head.
VALOR's thresholds can be taken as published (`--source published`); they are then measured, not fitted.

The artifact is all that `pseudolabel` needs to know: thresholds, prompt set, weak filter, and what a method learnt
besides (`fitted/`).
"""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from avvp_pipe.stages.blocks.precision import settled_precision
from avvp_pipe.stages.generators import (
    Calibrated,
    Evidence,
    Fit,
    FitSettings,
    LabelGenerator,
    Labelled,
    WeakFilter,
    check_features_of,
    evidence_of,
    generators_for,
    label_generator,
)
from avvp_pipe.stages.generators.cuts import FITTED, allowed, computing
from avvp_pipe.stages.rows import OK, SEPARATE, by_lot, rows_of
from avvp_pipe.stages.stage import Inputs, ParameterError, Progress, Reads, Stage, option

if TYPE_CHECKING:
    from avvp_pipe.stages.blocks.thresholds import Calibration
    from avvp_pipe.store import Artifact, Builder

TEACHERS_OF_PUBLISHED = {"visual": 4.6052, "audio": 3.2912}
"""Natural logarithms of the factors before the cosines that published thresholds cut: CLIP's and CLAP's."""
SMOOTH, STACK = "Of smooth", "Of stack"


@dataclass(frozen=True, slots=True)
class Params:
    """Whose logits to cut, and how."""

    method: Calibrated = option("valor", "Whose logits the thresholds are for.")
    source: Literal["fit", "published"] = option(
        "fit", "Fit thresholds on labelled clips, or take those that the paper published (valor, on LLP)."
    )
    mode: Literal["auto", "per-class", "class-agnostic"] = option(
        "auto", "One threshold a class, or one for all; auto: as the method has it."
    )
    prompts: str = option("auto", "Prompt set to compare with; auto: the method's own.")
    weak_filter: WeakFilter = option(
        "both", "Modalities whose labels are kept within the weak label, here and in the labels."
    )
    precision: Literal["fp32", "bf16", "auto"] = option(
        "fp32", "What a generator computes in, here and in the labels; auto: bf16 where this machine is made for it."
    )
    split: str = option("val", "Split to fit on; its seconds must be labelled.")
    share: Annotated[float, Field(gt=0, le=1)] = option(
        1.0, "Fit on this share of the labelled clips, drawn by the seed; smaller shares lie within larger ones."
    )
    outside_weak: Literal["count", "ignore"] = option(
        "count", "Positives outside the weak label: they cost recall (as released), or are left out."
    )
    ties: Literal["distinct", "released"] = option(
        "distinct", "Candidates: distinct logits, or every position of the sorted array as released."
    )
    no_positives: Literal["never", "always", "pooled", "error"] = option(
        "never", "A class without positives: never label it, always (as released), one threshold for all, or stop."
    )
    bootstrap: Annotated[int, Field(ge=0, le=10_000)] = option(
        0, "Times to fit thresholds on clips drawn with replacement, to see how far they move; 0: not at all."
    )
    seed: int = option(0, "Of the share, the bootstrap and the folds.")
    smooth_widths: Literal["per-class", "one"] = option(
        "per-class", "Widths of the Gaussian over time: one a class, or one for all.", panel=SMOOTH
    )
    folds: Annotated[int, Field(ge=2)] = option(
        5, "Parts of the clips; what is said of one is learnt on the others.", panel=STACK
    )
    stack_inputs: str = option(
        "all",
        "What it looks at: all, or some of now,near,mean,max,min,smooth,bridge,other-smooth,other-mean,labels.",
        panel=STACK,
    )
    stack_strength: Annotated[float, Field(gt=0)] = option(
        0.1, "Variance expected of its weights; the smaller, the closer they are kept to 0.", panel=STACK
    )
    stack_spread: Annotated[float, Field(ge=0)] = option(
        0.3, "How far the weights of classes may differ, in standard deviations of weights; 0: not at all.", panel=STACK
    )
    stack_cuts: Literal["presence", "sweep"] = option(
        "presence",
        "Two cuts, of seconds and of clips by their best second, for the official F; or a sweep for the best F1.",
        panel=STACK,
    )


def settle(params: Params, inputs: Inputs) -> Params:
    """Fill in what is left to the method: how many thresholds, and which prompts."""
    method = label_generator(params.method)
    agnostic = method.thresholds == "class-agnostic" if params.mode == "auto" else params.mode == "class-agnostic"
    settled = replace(
        params,
        mode="class-agnostic" if agnostic else "per-class",
        prompts=method.prompts if params.prompts == "auto" else params.prompts,
    )
    if params.source == "published":
        _check_published(method, settled)
    return replace(settled, precision=settled_precision(params.precision, "cpu"))


def _check_published(method: LabelGenerator, params: Params) -> None:
    if method.published is None:
        raise ParameterError(f"{method.name} has no published thresholds; valor has, for LLP. Use --source fit")
    fitting = {"mode": "per-class", "share": 1.0, "bootstrap": 0}
    if changed := [name for name, value in fitting.items() if getattr(params, name) != value]:
        raise ParameterError(
            f"published thresholds are not fitted: leave out {', '.join(f'--{name}' for name in changed)}, "
            "or use --source fit"
        )


def run(inputs: Inputs, params: Params, out: "Builder", progress: Progress) -> None:
    """Fit or take the thresholds of both modalities; store them, what they achieve, and the curves."""
    dataset, features = inputs["dataset"], inputs["features"]
    check_features_of(features, dataset)
    method, classes = label_generator(params.method), list(dataset.attrs["classes"])
    generators = generators_for(method, inputs)
    labelled = labelled_rows(dataset, params, status=features.array("status"))
    names = np.array(dataset.strings("video_ids"), dtype=object)[labelled]
    rows = labelled[drawn(names.tolist(), share=params.share, seed=params.seed)]
    out.put("classes", classes)
    out.describe(classes=classes, method=method.name, mode=params.mode, prompts=params.prompts, source=params.source)
    out.describe(
        weak_filter=params.weak_filter, precision=params.precision, clips=len(rows), labelled_clips=len(labelled)
    )
    evidence = evidence_of(dataset, features, prompts=params.prompts, rows=rows)
    truth = Labelled(audio=dataset.array("audio")[rows], visual=dataset.array("visual")[rows])
    with computing("bf16" if params.precision == "bf16" else "fp32"):
        if method.fit is None:
            fit = Fit({}, method.labeller(generators, {})(evidence))
        else:
            fit = method.fit(evidence, truth, generators, fit_settings(params))
    for name, array in fit.fitted.items():
        out.put(FITTED + name, array.tolist() if array.dtype.kind == "U" else array)
    if params.source == "published":
        _tell_scales(evidence, params, progress)
    _put_thresholds(fit, truth, evidence, params, out, progress)


def fit_settings(params: Params) -> FitSettings:
    """The parameters that methods which learn ask for, by their names."""
    return FitSettings(**{field.name: getattr(params, field.name) for field in fields(FitSettings)})


def drawn(video_ids: list[str], *, share: float, seed: int) -> NDArray[np.intp]:
    """A share of the clips, plainly at random by their ids: (K,) rows in order, at least one where there are any.

    A clip's place in the draw depends on its id and the seed alone, not on the other clips or their order; a smaller
    share is part of a larger one.

    >>> drawn(["a", "b", "c", "d"], share=0.5, seed=0)
    array([0, 3])
    """
    first = by_lot(video_ids, str(seed))[: max(1, round(share * len(video_ids)))]
    return np.array(sorted(first), np.intp)


def labelled_rows(dataset: "Artifact", params: Params, *, status: NDArray[Any]) -> NDArray[np.intp]:
    """Rows of the split whose audio and visual events are labelled second by second, of clips that did not fail.

    Raises StoreError where there are none to fit on; published thresholds can do without.
    """
    from avvp_pipe.store import StoreError

    dense = dataset.array("dense") == SEPARATE
    if params.source == "published":
        of_split = np.array(dataset.strings("splits"), dtype=str) == params.split
        return np.flatnonzero(of_split & dense & (status == OK))
    rows = rows_of(dataset, params.split, status=status)
    labelled: NDArray[np.intp] = rows[dense[rows]]
    if not len(labelled):
        raise StoreError(
            f"no clip of split {params.split!r} in {dataset.reference} has its seconds labelled for audio and vision; "
            "calibrate needs such clips (--split), or published thresholds (--source published)"
        )
    return labelled


def _put_thresholds(
    fit: Fit, truth: Labelled, evidence: Evidence, params: Params, out: "Builder", progress: Progress
) -> None:
    """Search both modalities, tell what could not be found, and store it all."""
    from avvp_pipe.stages.blocks.bootstrap import PERCENTILES
    from avvp_pipe.stages.blocks.search import Search, arrays_of, search, unmeasured

    classes: list[str] = out.attributes["classes"]
    published = label_generator(params.method).published if params.source == "published" else None
    given = published(classes) if published else fit.thresholds
    if params.bootstrap and fit.thresholds:
        progress.note(f"{params.method} chooses its thresholds itself, so that there is no bootstrap of the sweep")
    how = Search(
        mode="class-agnostic" if params.mode == "class-agnostic" else "per-class",
        outside_weak=params.outside_weak,
        ties=params.ties,
        no_positives=params.no_positives,
        bootstrap=params.bootstrap,
        seed=params.seed,
    )
    if params.bootstrap:
        out.describe(bootstrap={"resamples": params.bootstrap, "percentiles": list(PERCENTILES)})
    for modality, values in fit.logits._asdict().items():
        weak = allowed(evidence.weak, params.weak_filter, modality)
        cuts = None if given is None else getattr(given, modality)
        if cuts is not None and not len(values):
            progress.note(f"{modality}: no clip of split {params.split!r} is labelled, so that F1 is not measured")
            arrays = unmeasured(cuts)
        else:
            labels, lengths = getattr(truth, modality), evidence.features.lengths
            found, samples = search(values, labels, weak, lengths, how, given=cuts)
            if found.undefined:
                progress.note(f"{modality}: {_lacking(found, classes, params, fitted=cuts is None)}")
            arrays = arrays_of(found, samples)
        for suffix, array in arrays.items():
            out.put(modality + suffix, array)


def _lacking(found: "Calibration", classes: list[str], params: Params, *, fitted: bool) -> str:
    """Which classes have no positive, and what became of their thresholds."""
    if len(found.fits) < len(classes):
        who = "no class has a positive"
    elif len(found.undefined) == 1:
        who = f"{classes[found.undefined[0]]} has no positive"
    else:
        who = ", ".join(classes[index] for index in found.undefined) + " have no positives"
    if not fitted:
        return f"{who} to measure F1 on"
    cuts = dict.fromkeys(f"{found.thresholds[index]:.6g}" for index in found.undefined)
    whose = "its threshold is" if len(found.undefined) == 1 else "their threshold is"
    return f"{who} to fit on; {whose} {', '.join(cuts)} (--no-positives {params.no_positives})"


def _tell_scales(evidence: Evidence, params: Params, progress: Progress) -> None:
    """Say where the published thresholds cut other logits than they were made for."""
    for modality, wanted in TEACHERS_OF_PUBLISHED.items():
        came = getattr(evidence.features, f"{modality}_log_scale")
        if abs(came - wanted) > 0.01:
            progress.note(
                f"{modality}: the published thresholds are for a teacher whose logit scale is exp({wanted}), but that "
                f"of these features is exp({came:.4f})"
            )
    if params.prompts != "valor":
        progress.note(f"the published thresholds are for the prompt set valor, not {params.prompts}")


STAGE = Stage(
    name="calibrate",
    kind="thresholds",
    version=2,
    summary="Fit the thresholds of a method's logits on validation clips (best F1, exact).",
    reads={
        "dataset": Reads("dataset", "Weak and dense labels."),
        "features": Reads("features", "What the method sees and hears."),
        "generator": Reads("generator", "Temporal generator, for the methods that have one.", required=False),
        "second_generator": Reads("generator", "Another one, for `stack`.", required=False),
    },
    params=Params,
    run=run,
    settle=settle,
    example="avvp-pipe calibrate --method valor --dataset dataset/mine --features features/mine",
)
# version 2: the prompt set, the weak filter and what a method learnt are stored with the thresholds
