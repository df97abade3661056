"""Rows of any number pooled to one a second, as released loaders do with features of another rate than one a second."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def adaptive_average(rows: NDArray[Any], seconds: int) -> NDArray[Any]:
    """Average L rows into `seconds` rows: row t is the mean of rows floor(t L / T) .. ceil((t + 1) L / T) - 1.

    (L, D) floats, L >= 1 -> (T, D) of the same dtype; where L = T the rows themselves. Averages are taken in float64.
    What `torch.nn.functional.adaptive_avg_pool1d` computes, and with it UWAV's UnAV loader (commit 15c9a8d).

    >>> adaptive_average(np.array([[0.0], [2.0], [4.0]]), 2)
    array([[1.],
           [3.]])
    """
    length = len(rows)
    if length == seconds:
        return rows
    bounds = [(t * length // seconds, -(-(t + 1) * length // seconds)) for t in range(seconds)]
    pooled = [rows[start:stop].mean(axis=0, dtype=np.float64) for start, stop in bounds]
    return np.array(pooled, rows.dtype).reshape(seconds, *rows.shape[1:])
