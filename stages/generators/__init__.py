"""Label generators: from features to segment-level logits, one file a method.

A generator says how loudly each class speaks in each second; thresholds (`stages/calibrate.py`) and the weak
labels (`stages/pseudolabel.py`) make labels of that.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from avvp_pipe.stages.generators import ear_labels, smooth, stack, uwav_labels, valor, video_labels, zero_shot
from avvp_pipe.stages.generators.cuts import Cuts, WeakFilter, cuts_of
from avvp_pipe.stages.generators.reading import check_features_of, evidence_of, segment_features
from avvp_pipe.stages.generators.records import (
    Calibrated,
    Evidence,
    Fit,
    FitSettings,
    Fitted,
    Generators,
    LabelGenerator,
    Labelled,
    Labeller,
    Logits,
    Method,
    SegmentFeatures,
    Thresholds,
)

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

GENERATORS: dict[str, LabelGenerator] = {
    module.METHOD.name: module.METHOD
    for module in (
        video_labels,  # the weak label everywhere
        zero_shot,  # teachers alone, one threshold for all classes
        valor,  # teachers alone, a threshold a class
        smooth,  # ours: teachers alone, smoothed over time
        uwav_labels,  # a generator that sees the whole clip
        ear_labels,  # the same, pre-trained asymmetrically on migrated labels
        stack,  # ours: all of these, weighed on the validation split
    )
}
GENERATOR_ROLES = ("generator", "second_generator")
"""The inputs of `calibrate` and `pseudolabel` that are temporal generators."""

__all__ = [
    "GENERATORS",
    "GENERATOR_ROLES",
    "Calibrated",
    "Cuts",
    "Evidence",
    "Fit",
    "FitSettings",
    "Fitted",
    "Generators",
    "LabelGenerator",
    "Labelled",
    "Labeller",
    "Logits",
    "Method",
    "SegmentFeatures",
    "Thresholds",
    "WeakFilter",
    "check_features_of",
    "cuts_of",
    "evidence_of",
    "generators_for",
    "label_generator",
    "segment_features",
]


def label_generator(name: str) -> LabelGenerator:
    """The method of that name. Raises ValueError naming those there are."""
    try:
        return GENERATORS[name]
    except KeyError:
        raise ValueError(f"no label generator {name!r}; there are {', '.join(GENERATORS)}") from None


def generators_for(method: LabelGenerator, given: "Mapping[str, Artifact]") -> Generators:
    """The temporal generators among a stage's inputs, as the method wants them.

    Raises ValueError where it runs none and got one, needs one and got none, or got one pre-trained otherwise.
    """
    found = {role: given[role] for role in GENERATOR_ROLES if role in given}
    if method.generator == "any":
        return found
    if method.generator == "none":
        if found:
            came = ", ".join(str(one.reference) for one in found.values())
            raise ValueError(f"{method.name} runs no generator, but {came} was given; leave --generator out")
        return {}
    if list(found) != ["generator"]:
        raise ValueError(
            f"{method.name} runs one generator; make it with `avvp-pipe pretrain --method {method.generator}` "
            "and give it as --generator NAME"
        )
    came = str(found["generator"].attrs.get("method", "uwav"))
    if came != method.generator:
        raise ValueError(
            f"{found['generator'].reference} was pre-trained as {came}, but {method.name} runs one pre-trained as "
            f"{method.generator}: `avvp-pipe pretrain --method {method.generator}`"
        )
    return found
