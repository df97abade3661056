"""Label generators: from features to segment-level logits, one file a method.

A generator says how loudly each class speaks in each second; thresholds (`stages/calibrate.py`) and the weak
labels (`stages/pseudolabel.py`) make labels of that.
"""

from typing import TYPE_CHECKING

from avvp_pipe.stages.generators import uwav_labels, valor, video_labels
from avvp_pipe.stages.generators.reading import segment_features
from avvp_pipe.stages.generators.records import LabelGenerator, Logits, SegmentFeatures

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

GENERATORS: dict[str, LabelGenerator] = {
    method.name: method for method in (video_labels.METHOD, valor.METHOD, uwav_labels.METHOD)
}

__all__ = [
    "GENERATORS",
    "LabelGenerator",
    "Logits",
    "SegmentFeatures",
    "label_generator",
    "method_logits",
    "segment_features",
]


def label_generator(name: str) -> LabelGenerator:
    """The method of that name. Raises ValueError naming those there are."""
    try:
        return GENERATORS[name]
    except KeyError:
        raise ValueError(f"no label generator {name!r}; there are {', '.join(GENERATORS)}") from None


def method_logits(name: str, features: "Artifact", generator: "Artifact | None") -> Logits:
    """A method's logits for all clips of a features artifact, NaN where the features are.

    Raises ValueError where the method is unknown, or lacks or does not take the generator it is given.
    """
    method = label_generator(name)
    if generator is not None and not method.needs_generator:
        raise ValueError(f"{name} runs no generator, but {generator.reference} was given; leave --generator out")
    return method.logits(segment_features(features, prompts=method.prompts), generator)
