"""Pseudo-label denoising (PLD): labels at which a trained parser stumbles, far more than it usually does, are flipped.

    Proposed in VPLAN ("Improving Audio-Visual Video Parsing with Pseudo Visual Labels", arXiv:2303.02344), used on
    VALOR's labels in VALOR (NeurIPS 2023, appendix D).  No code was released for it.

A parser is trained on the labels.  Then, for every clip and class of its weak label, in one modality::

    loss[t] = BCE(probability[t], label[t])          of the seconds t that exist
    usual   = mean of the K smallest losses          K is `smallest`
    flip label[t] where loss[t] > factor * usual

and a new parser is trained on what came out.  VALOR took K = 4 and factor 6 for vision, K = 10 and factor 10 for audio.

Reconstructed: the mechanism and both numbers are the papers'; that the K smallest are taken over the seconds of a clip
and that the factor multiplies is our reading.  It explains VALOR's Table 9, where audio does not change in any digit:
with K and the factor at least the number of seconds, factor * usual is at least the sum of all losses, so that no loss
exceeds it (`cannot_flip`).  Ours: a clip of fewer than K seconds takes all it has; where the usual loss is 0 nothing is
flipped, since any loss would exceed it; losses end at 100, as in torch; and, off by default, `only_disagreeing`. The
rule compares losses only with one another: beside seconds of which the parser is very sure, it also flips labels that
the parser shares.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

HIGHEST_LOSS = 100.0
_ABOVE_HALF = np.nextafter(np.float32(0.5), np.float32(1))


def flipped(
    hard: Flags,
    probabilities: NDArray[np.floating[Any]],
    weak: Flags,
    lengths: NDArray[np.integer[Any]],
    *,
    smallest: int,
    factor: float,
    only_disagreeing: bool = False,
) -> Flags:
    """Which labels of one modality to flip: (N, T, C) bool.

    hard (N, T, C), probabilities (N, T, C) in [0, 1] of a parser trained on them, weak (N, C), lengths (N,) seconds,
    0 for clips to be left alone. smallest: K, at least 1; factor: at least 0. only_disagreeing: flip only what the
    parser itself calls otherwise, at one half. Raises ValueError where shapes or settings do not fit.

    >>> hard, sure = np.array([[[True], [True], [True]]]), np.array([[[0.9], [0.8], [0.2]]])
    >>> flipped(hard, sure, np.array([[True]]), np.array([3]), smallest=2, factor=6).ravel()
    array([False, False,  True])
    """
    clips, seconds, classes = hard.shape
    if [each.shape for each in (probabilities, weak, lengths)] != [hard.shape, (clips, classes), (clips,)]:
        raise ValueError(
            "denoising wants labels and probabilities (N, T, C), weak (N, C) and lengths (N,), but "
            f"{hard.shape = }, {probabilities.shape = }, {weak.shape = } and {lengths.shape = }"
        )
    if smallest < 1 or not factor >= 0:
        raise ValueError(f"smallest is at least 1 and factor at least 0, but {smallest = } and {factor = }")
    if not hard.size:
        return np.zeros(hard.shape, np.bool_)
    valid = (np.arange(seconds) < lengths[:, None])[:, :, None]
    loss = np.where(valid, _losses(hard, probabilities), np.inf)
    taken = np.clip(lengths, 1, smallest)[:, None]
    # Summed in order, so that a sum is never less than one of its terms, in floating point too (see `cannot_flip`).
    sums = np.cumsum(np.sort(loss, axis=1), axis=1)
    usual = np.take_along_axis(sums, taken[:, :, None] - 1, axis=1)
    found: Flags = (loss * taken[:, :, None] > factor * usual) & (usual > 0) & valid & weak[:, None]
    if only_disagreeing:
        found &= (probabilities > 0.5) != hard
    return found


def cannot_flip(lengths: NDArray[np.integer[Any]], *, smallest: int, factor: float) -> Flags:
    """Clips (N,) in which these settings can change no label, whatever the losses are.

    Of n losses, none is more than their sum, which is n times their mean: nothing flips where both K and the factor
    are at least n.

    >>> cannot_flip(np.array([10, 11]), smallest=10, factor=10)
    array([ True, False])
    """
    return np.asarray(lengths <= min(smallest, factor), np.bool_)


def mirrored(soft: NDArray[np.float32], hard: Flags) -> NDArray[np.float32]:
    """Soft labels of flipped cells: 1 - soft, on the side of one half that the new hard label says; any one shape.

    >>> mirrored(np.array([0.75, 0.25], np.float32), np.array([False, True]))
    array([0.25, 0.75], dtype=float32)
    """
    other = 1 - soft
    on = np.maximum(np.maximum(soft, other), _ABOVE_HALF)
    return np.where(hard, on, np.minimum(soft, other)).astype(np.float32)


def _losses(hard: Flags, probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Binary cross-entropy of each cell, at most 100."""
    sure = probabilities.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss: NDArray[np.float64] = -np.where(hard, np.log(sure), np.log1p(-sure))
    return np.minimum(loss, HIGHEST_LOSS)
