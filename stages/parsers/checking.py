"""Whether labels, features and dataset belong together, and which clips a parser can learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.parsers.feeding import failed
from avvp_pipe.stages.rows import OK, check_same_clips, rows_of
from avvp_pipe.store import StoreError

if TYPE_CHECKING:
    from avvp_pipe.stages.stage import Progress
    from avvp_pipe.store import Artifact

__all__ = ["check_labels", "tell_training", "training_rows"]

NAMED = 3
"""Classes or clips that an error names."""


def check_labels(dataset: Artifact, features: Artifact, labels: Artifact | None) -> None:
    """Raise StoreError where features or labels are of other classes, clips or seconds than the dataset has."""
    for other in (features, *([labels] if labels is not None else [])):
        _check_classes(dataset, other)
        _check_clips(dataset, other)
    wanted = dataset.facts("audio").shape
    if labels is not None and labels.facts("audio_hard").shape != wanted:
        raise StoreError(
            f"{labels.reference} is of (clips, seconds, classes) {labels.facts('audio_hard').shape}, but "
            f"{dataset.reference} has {wanted}; label that dataset"
        )
    if "audio" in features and features.facts("audio").shape[1] != wanted[1]:
        raise StoreError(
            f"{features.reference} has {features.facts('audio').shape[1]} seconds a clip, but {dataset.reference} has "
            f"{wanted[1]}; extract that dataset"
        )


def _check_classes(dataset: Artifact, other: Artifact) -> None:
    mine, theirs = list(dataset.attrs["classes"]), list(other.attrs.get("classes", dataset.attrs["classes"]))
    if mine == theirs:
        return
    strange = [name for name in theirs if name not in mine]
    came = f"the same {len(mine)} in another order" if sorted(mine) == sorted(theirs) else _few(strange or theirs)
    raise StoreError(
        f"{other.reference} has other classes than {dataset.reference}: {came}, where {_few(mine)} are wanted; "
        "give artifacts that were made from one dataset"
    )


def _check_clips(dataset: Artifact, other: Artifact) -> None:
    mine, theirs = dataset.strings("video_ids"), set(other.strings("video_ids"))
    if missing := [name for name in mine if name not in theirs]:
        raise StoreError(
            f"{other.reference} lacks {len(missing)} of the {len(mine)} clips of {dataset.reference}, such as "
            f"{_few(missing)}; make it of that dataset (clips that cannot be processed are marked, not left out)"
        )
    check_same_clips(dataset, other)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def training_rows(
    dataset: Artifact, features: Artifact, labels: Artifact | None, progress: Progress
) -> NDArray[np.intp]:
    """Clips of the training split that could be processed, and labelled; those left out are told.

    Raises StoreError where there is none.
    """
    lost = failed(features) if labels is None else failed(features) | failed(labels)
    rows = rows_of(dataset, "train", status=np.where(lost, OK + 1, OK))
    everything = rows_of(dataset, "train")
    if left_out := len(everything) - len(rows):
        progress.note(f"{left_out} of {len(everything)} training clips failed before and are not trained on")
    return rows


def tell_training(validated: bool, select: str | None, progress: Progress) -> None:
    """Say where there is nothing to select by."""
    if not validated:
        progress.note(
            f"no validation clip has its seconds labelled, so that {select} is not known; the last epoch is kept "
            "instead of the best, and nothing stops training early"
        )
