"""What a thresholds artifact says about making labels: where to cut, and what has to be as it was in calibration."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.generators.records import Fitted, LabelGenerator, Thresholds
from avvp_pipe.stages.stage import ParameterError

if TYPE_CHECKING:
    from avvp_pipe.store import Artifact

WeakFilter = Literal["both", "audio", "visual", "none"]
"""The modalities whose labels are kept within the weak label."""
Precision = Literal["fp32", "bf16"]
"""What the matrix products of a generator are computed in."""
FITTED = "fitted/"
"""Prefix of the arrays that a method learnt on the validation split besides thresholds."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """How the logits of one method become labels."""

    thresholds: Thresholds
    prompts: str
    """The prompt set that the logits were calibrated with."""
    weak_filter: WeakFilter = "both"
    precision: Precision = "fp32"
    fitted: Fitted = field(default_factory=dict)

    def filters(self, modality: str) -> bool:
        """Whether the labels of this modality are kept within the weak label."""
        return filters(self.weak_filter, modality)


def computing(precision: Precision) -> AbstractContextManager[None]:
    """Inside, the matrix products of generators are computed in this precision."""
    if precision == "fp32":
        return nullcontext()
    import torch

    from avvp_pipe.stages.blocks.device import autocast

    return autocast(torch.device("cpu"), precision)


def filters(weak_filter: WeakFilter, modality: str) -> bool:
    """Whether the labels of this modality are kept within the weak label.

    >>> filters("audio", "audio"), filters("audio", "visual"), filters("both", "visual")
    (True, False, True)
    """
    return weak_filter in ("both", modality)


def allowed(weak: NDArray[np.bool_], weak_filter: WeakFilter, modality: str) -> NDArray[np.bool_]:
    """The classes that may be called in each clip: the weak label, or all where it is no filter. (N, C) -> (N, C)."""
    return weak if filters(weak_filter, modality) else np.ones_like(weak)


def cuts_of(method: LabelGenerator, artifact: "Artifact | None", classes: Sequence[str]) -> Cuts:
    """What `calibrate` or `import-thresholds` stored for this method, for these classes in this order.

    Raises ParameterError where the method needs thresholds and has none, has no use for those it got, or got those of
    another method or for other classes. Classes in another order are refused too: what a method learnt (`fitted/`)
    cannot be put in order from outside.
    """
    if not method.calibrated:
        if artifact is not None:
            raise ParameterError(f"{method.name} cuts nothing, but {artifact.reference} was given; leave it out")
        everything = np.full(len(classes), -np.inf, np.float32)
        return Cuts(Thresholds(everything, everything), method.prompts)
    if artifact is None:
        raise ParameterError(
            f"{method.name} cuts logits by thresholds; make them with `avvp-pipe calibrate --method {method.name}` "
            "and give them as --thresholds thresholds/NAME"
        )
    if (came := artifact.attrs.get("method")) != method.name:
        raise ParameterError(f"{artifact.reference} was calibrated for {came}, not for {method.name}")
    _check_classes(artifact, classes)
    weak_filter = artifact.attrs.get("weak_filter", "both")
    if weak_filter not in get_args(WeakFilter):
        raise ParameterError(f"{artifact.reference} has weak_filter {weak_filter!r}, not one of {get_args(WeakFilter)}")
    names = [name.removeprefix(FITTED) for name in artifact.array_names() if name.startswith(FITTED)]
    return Cuts(
        Thresholds(artifact.array("audio"), artifact.array("visual")),
        prompts=str(artifact.attrs.get("prompts", method.prompts)),
        weak_filter=weak_filter,
        precision="bf16" if artifact.attrs.get("precision") == "bf16" else "fp32",
        fitted={name: artifact.array(FITTED + name) for name in names},
    )


def _check_classes(artifact: "Artifact", classes: Sequence[str]) -> None:
    came = list(artifact.attrs.get("classes", []))
    if came == list(classes):
        return
    if sorted(map(str, came)) == sorted(classes):
        place = next(index for index, (mine, yours) in enumerate(zip(came, classes, strict=True)) if mine != yours)
        raise ParameterError(
            f"{artifact.reference} has the dataset's classes in another order: number {place} is {came[place]!r}, "
            f"in the dataset {classes[place]!r}; calibrate on this dataset, or import the thresholds in its order"
        )
    strange = [name for name in came if name not in classes]
    lacking = [name for name in classes if name not in came]
    raise ParameterError(
        f"{artifact.reference} was calibrated for other classes: {', '.join(strange[:5]) or 'none'} are not the "
        f"dataset's, {', '.join(lacking[:5]) or 'none'} of the dataset's lack; calibrate on this dataset"
    )
