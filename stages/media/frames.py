"""Which frames stand for the seconds of a clip: pure functions on arrays.

    linspace    VALOR: of its dump of 8 pictures a second, T evenly spaced ones, first and last included
                n = 80 pictures, T = 10:   0  9 18 26 35 44 53 61 70 79
    linspace-7  the same with the ffmpeg program from 7.0 on, which differs below 16 frames a second and where the rate
                varies (`dump.py`)
    centre      UWAV's text: the frame nearest to the middle of each second, 0.5, 1.5, ...

With k frames a second `linspace` takes k * T pictures, `centre` the middles of the k parts of each second.

The dump runs up to 1.4 pictures ahead of its clock. So the frame picked may be up to 0.17 s older than picture / 8
says, and where that falls on the beginning of a second (picture 9: 1.125 s) may show the last moments of the one
before: on the real clip of LLP it is the frame shown at 0.97 s. The frames are those VALOR embedded, all the same.

Departures from VALOR's released code:
* A clip shorter than asked by a second or more is filled up with its last frame, so that every frame stays in its own
  second; theirs squeezed the T picks together.
* Of a clip longer than asked by SLACK_SECONDS or more the seconds asked are taken, as if the file ended there; theirs
  spread the T picks over all of it.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "RULES",
    "SLACK_SECONDS",
    "centre_times",
    "linspace_indices",
    "nearest_frames",
    "picked",
    "seen_in_time",
]

RULES = ("linspace", "linspace-7", "centre")

SLACK_SECONDS = 0.5
"""A clip longer than asked by less than this is spread over its whole duration, as VALOR did (n = 82 at 10.03 s)."""
FILL_SECONDS = 1.0
"""A clip shorter than asked by this or more is filled up. Up to there VALOR's squeezed picks lie in their seconds."""
TIE_SECONDS = 1e-6
"""Of two frames equally near to within this, the earlier wins; rounding errors must not decide it."""

Times = NDArray[np.float64]


def linspace_indices(frames: int, picks: int) -> NDArray[np.intp]:
    """`picks` evenly spaced indices out of `frames`, rounded half to even (VALOR, released code).

    >>> linspace_indices(82, 10).tolist()
    [0, 9, 18, 27, 36, 45, 54, 63, 72, 81]
    """
    return np.asarray(np.round(np.linspace(0, frames - 1, picks)), dtype=np.intp)


def seen_in_time(shown_seconds: Times, duration_seconds: float, segments: int) -> int:
    """How many of the frames VALOR's rule looks at: all, or in a long clip those shown within the seconds asked."""
    if duration_seconds < segments + SLACK_SECONDS:
        return len(shown_seconds)
    return max(int(np.searchsorted(shown_seconds, segments, side="left")), 1)


def picked(
    dump: NDArray[np.intp], duration_seconds: float, segments: int, per_second: int, rate: int
) -> NDArray[np.intp]:
    """VALOR's picks out of its dump: (segments * per_second,) indices of frames.

    dump: (n,) the frame each picture shows, `rate` pictures a second; all of a clip that is long enough, or what there
    is of one that lasts `duration_seconds`, less than asked.
    """
    wanted = len(dump)
    if duration_seconds <= segments - FILL_SECONDS:
        wanted = max(wanted, rate * segments)
    pictures = linspace_indices(wanted, segments * per_second)
    return np.asarray(dump[np.minimum(pictures, len(dump) - 1)], np.intp)


def centre_times(segments: int, per_second: int = 1) -> Times:
    """The middles of the parts of each second.

    >>> centre_times(3).tolist()
    [0.5, 1.5, 2.5]
    >>> centre_times(1, 2).tolist()
    [0.25, 0.75]
    """
    return (np.arange(segments * per_second) + 0.5) / per_second


def nearest_frames(wanted_seconds: Times, shown_seconds: Times) -> NDArray[np.intp]:
    """Index of the frame whose presentation time is nearest to each wanted time; the earlier one of two.

    wanted_seconds (T,), shown_seconds (F,) rising, F >= 1. Beyond the last frame, the last one.

    >>> nearest_frames(np.array([0.0, 0.26, 9.0]), np.array([0.0, 0.25, 0.5])).tolist()
    [0, 1, 2]
    """
    middles = (shown_seconds[1:] + shown_seconds[:-1]) / 2
    return np.asarray(np.searchsorted(middles + TIE_SECONDS, wanted_seconds, side="left"), dtype=np.intp)
