"""Samples as 16-bit integers and back, as laion_clap does it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

SCALE = 32767


def as_int16(audio: NDArray[np.float32]) -> NDArray[np.int16]:
    """Quantise samples in [-1, 1] (anything beyond is clipped): times 32767, truncated towards zero.

    >>> as_int16(np.array([0.5, -1.0, 2.0], np.float32))
    array([ 16383, -32767,  32767], dtype=int16)
    """
    return (np.clip(audio, -1.0, 1.0) * SCALE).astype(np.int16)


def as_float32(audio: NDArray[Any]) -> NDArray[np.float32]:
    """Samples in [-1, 1], whichever way they were stored.

    >>> as_float32(np.array([-32767, 0], np.int16))
    array([-1.,  0.], dtype=float32)
    """
    if audio.dtype == np.int16:
        return (audio / np.float32(SCALE)).astype(np.float32)
    return audio.astype(np.float32, copy=False)
