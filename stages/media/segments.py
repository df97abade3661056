"""Where the seconds of a clip's sound begin and end, in samples.

    exact   second t is [t * rate, (t + 1) * rate)
    valor   whatever length N the file's sound has is cut into T pieces of N // T samples (VALOR, released code), which
            begin at round(linspace(0, N, T + 1)): neighbours may leave out or share a sample

Pieces are filled up for CLAP by repetition, as often as they fit whole into 480,000 samples, and zeros behind: 48,000
samples fit ten times, 48,051 nine times with a second of zeros. Cut `exact` avoids that, `valor` reproduces it.
"""

import numpy as np

__all__ = ["CUTS", "LONGER_SECONDS", "segment_bounds"]

CUTS = ("exact", "valor")

LONGER_SECONDS = 0.5
"""Sound longer than asked by up to this is one recording of the seconds asked, and cut as a whole by `valor`."""


def segment_bounds(samples: int, segments: int, *, rate: int, cut: str) -> list[tuple[int, int]]:
    """Begin and end of each of the T = `segments` pieces of a sound of `samples` samples.

    Raises ValueError for an unknown cut, and where there are fewer samples than the pieces need.

    >>> segment_bounds(480512, 10, rate=48000, cut="valor")[:2]
    [(0, 48051), (48051, 96102)]
    """
    if cut not in CUTS:
        raise ValueError(f"no audio cut {cut!r}; there are {', '.join(CUTS)}")
    needed = segments * rate if cut == "exact" else segments
    if segments < 1 or samples < needed:
        raise ValueError(
            f"wanted one or more segments and {needed} or more samples for them, got {segments = }, {samples = }"
        )
    if cut == "exact":
        return [(second * rate, (second + 1) * rate) for second in range(segments)]
    begins = np.round(np.linspace(0, samples, segments + 1)).astype(int)[:-1].tolist()
    return [(begin, begin + samples // segments) for begin in begins]
