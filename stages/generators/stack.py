"""Stacked labels, ours: everything the teachers say, weighed on the validation split into one calibrated probability.

    static (VALOR's logits) ─┐            ┌ a second, its neighbours, its clip    ─┐
    UWAV's generator        ─┼─ in units ─┼ what lies between two sure seconds    ─┼─ logistic regression ─ probability
    EAR's generator         ─┘  of their  ├ the other modality's evidence         ─┤   weights for all classes,
                                class     └ how many labels the clip has          ─┘   each a little its own

Every method here fits its thresholds on the validation split's dense labels; this one learns
some 30 weights for all classes, and how each class differs from them, from the same labels and nothing else: it uses
what the others use, only harder. Any of the generators may be missing; they are asked with the prompts that they were
pre-trained with.

| what | where |
|---|---|
| inputs and their names | `stack_inputs.py` |
| regression, folds | `stack_model.py` |
| a cut for a second, and one for its clip | `stack_presence.py` |
| what is stored, and what explains it | `stack_fitted.py` |

Cross-fitted over clips: the logits of a validation clip come from a model that has not seen it, here and in
`pseudolabel`, which knows the clips by their ids; all other clips get the model of all validation clips. Only the cuts,
two numbers a modality, are chosen on the cross-fitted logits of all of them. Positives outside the weak label are
left out of fitting, unless the weak label is no filter (`weak_filter`); then all cells are fitted on. What comes out is
the logit of a probability; the probability is the soft label.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators import temporal, valor
from avvp_pipe.stages.generators.cuts import allowed
from avvp_pipe.stages.generators.records import (
    Evidence,
    Fit,
    FitSettings,
    Fitted,
    Generators,
    LabelGenerator,
    Labelled,
    Labeller,
    Logits,
    Thresholds,
)
from avvp_pipe.stages.generators.stack_fitted import Part, Stack, Weight, explained, stack_of
from avvp_pipe.stages.generators.stack_inputs import kinds_of, names_of
from avvp_pipe.stages.generators.stack_model import (
    MODALITIES,
    Clips,
    Shrinkage,
    cells_of,
    fit_model,
    folds_of,
    teacher_units,
)
from avvp_pipe.stages.generators.stack_presence import Presence, choose

__all__ = ["METHOD", "Weight", "explained"]

STATIC = "static"
GENERATOR_PROMPTS = "uwav"
"""The prompt set that generators are pre-trained with."""


def fit(evidence: Evidence, labelled: Labelled, generators: Generators, settings: FitSettings) -> Fit:
    """A model without each fold and one of all clips, the cuts, and each clip's logits by a model that has not seen it.

    Raises ValueError for less than two clips, and for inputs that there are not.
    """
    ids = evidence.video_ids
    if len(ids) < 2:
        raise ValueError(
            f"stack is fitted on some clips and judged on others, but {len(ids)} clip is labelled; "
            "label more clips of the split that it is calibrated on"
        )
    sources = _sources(generators)
    kinds = kinds_of(settings.stack_inputs)
    names = names_of(list(sources), kinds) + (() if settings.weak_filter == "both" else ("named",))
    clips = _clips(evidence, _speakers(generators, sources))
    # In order of ids, so that the order of clips changes nothing, not even how sums are rounded.
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__))
    folds = folds_of(ids, min(settings.folds, len(ids)), seed=settings.seed)
    parts = [order[folds[order] != fold] for fold in range(folds.max() + 1)] + [order]
    stack = Stack(
        inputs=names,
        sources=sources,
        folds={ids[row]: int(folds[row]) for row in order},
        parts=tuple(_part(clips.of(rows), _of(labelled, rows), names, settings) for rows in parts),
        cuts={},
    )
    logits = stack.logits(clips, ids)
    if settings.mode == "per-class" or settings.stack_cuts == "sweep":
        return Fit(stack.arrays(), logits)
    stack = replace(stack, cuts={name: _cuts(name, logits, labelled, clips, settings) for name in MODALITIES})
    cuts = [np.full(clips.weak.shape[1], stack.cuts[name].second, np.float32) for name in MODALITIES]
    return Fit(stack.arrays(), stack.lowered(logits), Thresholds(*cuts))


def labeller(generators: Generators, fitted: Fitted) -> Labeller:
    """The fitted stack at work.

    Raises ValueError where the generators are not those that it was fitted with; in which role they come is all one.
    """
    stack = stack_of(fitted)
    speakers = _speakers(generators, stack.sources)

    def logits(evidence: Evidence) -> Logits:
        return stack.lowered(stack.logits(_clips(evidence, speakers), evidence.video_ids))

    return logits


def _part(clips: Clips, labelled: Labelled, names: tuple[str, ...], settings: FitSettings) -> Part:
    units = teacher_units(clips)
    audio, visual = (
        fit_model(
            names,
            cells_of(clips, units, modality),
            getattr(labelled, modality),
            allowed(clips.weak, settings.weak_filter, modality),
            Shrinkage(settings.stack_strength, settings.stack_spread),
        )
        for modality in MODALITIES
    )
    return Part(units, audio=audio, visual=visual)


def _cuts(name: str, logits: Logits, labelled: Labelled, clips: Clips, settings: FitSettings) -> Presence:
    may = allowed(clips.weak, settings.weak_filter, name)
    return choose(getattr(logits, name), getattr(labelled, name), may, clips.lengths)


def _of(labelled: Labelled, rows: NDArray[np.intp]) -> Labelled:
    return Labelled(audio=labelled.audio[rows], visual=labelled.visual[rows])


def _clips(evidence: Evidence, speakers: Mapping[str, Labeller]) -> Clips:
    teachers = {name: speak(evidence) for name, speak in speakers.items()}
    return Clips(teachers, evidence.weak, evidence.features.lengths)


def _sources(generators: Generators) -> dict[str, str]:
    """Teacher -> key: the static teachers, then each generator by the method of its pre-training, a second as `2`."""
    found = {STATIC: ""}
    for generator in generators.values():
        method = str(generator.attrs.get("method", "uwav"))
        found[f"{method} 2" if method in found else method] = generator.identity.key
    return found


def _speakers(generators: Generators, sources: Mapping[str, str]) -> dict[str, Labeller]:
    """Teacher -> the function that gives its logits."""
    by_key = {generator.identity.key: {role: generator} for role, generator in generators.items()}
    if set(by_key) != {key for key in sources.values() if key}:
        wanted = ", ".join(f"{name} ({key})" for name, key in sources.items() if key) or "none"
        came = ", ".join(str(generator.reference) for generator in generators.values()) or "none"
        raise ValueError(
            f"stack weighs the generators that it was calibrated with, {wanted}, but came with {came}; "
            "give those, as --generator and --second-generator, or calibrate again"
        )
    generated = {name: _asked(temporal.labeller(by_key[key], {})) for name, key in sources.items() if key}
    return {STATIC: valor.logits, **generated}


def _asked(speak: Labeller) -> Labeller:
    """A generator, asked with the prompts that it knows where there are features of those."""

    def logits(evidence: Evidence) -> Logits:
        texts = evidence.texts.get(GENERATOR_PROMPTS)
        if texts is None:
            return speak(evidence)
        features = replace(evidence.features, text_audio=texts.audio, text_visual=texts.visual)
        return speak(replace(evidence, features=features))

    return logits


METHOD = LabelGenerator(
    name="stack",
    paper="ours",
    prompts="valor",
    labeller=labeller,
    fit=fit,
    generator="any",
    thresholds="class-agnostic",
    soft="probability",
)
