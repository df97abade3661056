"""AVE's measure: of all seconds of all samples, the share whose one label, a class or background, is right.

Labels here are boolean, (N, T, C) with no class in a second of background; AVE's are one index a second, (N, T), with
background last, C = 28. Released code of UWAV (CVPR 2025), after AVE (ECCV 2018).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def class_indices(labels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """One index a second: that of its class, or C where it has none, which is background.

    labels (N, T, C) bool. Returns (N, T) in [0, C]. Raises ValueError where a second has two classes: AVE has no
    such second, and the index of only one of them would be scored.

    >>> class_indices(np.array([[[False, True], [False, False]]]))
    array([[1, 2]])
    """
    if labels.ndim != 3 or labels.dtype != np.bool_ or not labels.shape[2]:
        raise ValueError(f"wanted boolean labels of shape (N, T, C), got {labels.dtype} of shape {labels.shape}")
    several = np.argwhere(labels.sum(axis=2) > 1)
    if several.size:
        clip, second = several[0].tolist()
        classes = ", ".join(map(str, np.flatnonzero(labels[clip, second])))
        raise ValueError(
            f"{len(several)} seconds have several classes, the first is second {second} of clip {clip} with classes "
            f"{classes}; keep one a second (the one of the highest logit) before taking AVE's accuracy"
        )
    return np.where(labels.any(axis=2), labels.argmax(axis=2), labels.shape[2])


def class_labels(indices: NDArray[Any], classes: int) -> NDArray[np.bool_]:
    """The reverse: (N, T) indices in [0, C] to (N, T, C) bool, nothing where the index is C, background.

    Raises ValueError for what is no index, or one outside.

    >>> class_labels(np.array([[1, 2]]), classes=2)
    array([[[False,  True],
            [False, False]]])
    """
    if indices.ndim != 2 or indices.dtype.kind not in "iu":
        raise ValueError(f"wanted whole numbers of shape (N, T), got {indices.dtype} of shape {indices.shape}")
    if indices.size and not 0 <= indices.min() <= indices.max() <= classes:
        raise ValueError(
            f"indices should lie in 0 to {classes}, which is background, "
            f"but reach from {indices.min()} to {indices.max()}"
        )
    return np.asarray(indices[:, :, None] == np.arange(classes))


def one_a_second(on: NDArray[np.bool_], scores: NDArray[Any]) -> NDArray[np.bool_]:
    """Of the classes that are on in a second, the one of the highest score alone, of equals the first.

    on (N, T, C) bool; scores (N, T, C) >= 0. Returns (N, T, C) bool, with no class where none was on.
    """
    best = np.where(on, scores, -1).argmax(axis=2)
    return np.asarray(on & (np.arange(on.shape[2]) == best[:, :, None]))


def ave_accuracy(predicted: NDArray[Any], truth: NDArray[Any], *, lengths: NDArray[Any] | None = None) -> float:
    """Percent of seconds whose index is right, pooled over all clips.

    predicted, truth: (N, T) indices of `class_indices`, or of an argmax over C + 1 scores. lengths: (N,) seconds that
    count of each clip; all T where left out. Raises ValueError for other shapes, and where no second counts.

    >>> ave_accuracy(np.array([[1, 2, 0, 2]]), np.array([[1, 2, 2, 2]]))
    75.0
    """
    if predicted.shape != truth.shape or truth.ndim != 2:
        raise ValueError(f"wanted two arrays of one shape (N, T), got {predicted.shape} and {truth.shape}")
    counts = np.ones(truth.shape, bool)
    if lengths is not None:
        if lengths.shape != truth.shape[:1]:
            raise ValueError(f"wanted one length a clip, {truth.shape[:1]}, got {lengths.shape}")
        counts = np.arange(truth.shape[1]) < lengths[:, None]
    if not counts.any():
        raise ValueError("no second of any clip counts; accuracy needs at least one")
    return float(100.0 * (predicted == truth)[counts].mean())
