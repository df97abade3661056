"""VALOR's frame dump, `ffmpeg -i video -r 8 %06d.jpg`: which frame of a file each of its pictures is.

Nothing is dumped: the program's way from presentation times to 8 pictures a second is worked out again. It is greedy.
A frame becomes a picture unless that would run more than 1.1 pictures ahead of the clock, a gap is filled with copies,
and so the dump of an ordinary clip is up to 1.4 pictures ahead of the time its numbers say: 82 pictures in 10 s.

| symbol | here | in the program (fftools, video output at a constant rate) |
|---|---|---|
| moment | when a frame is shown, in pictures (eighths of a second) | sync_ipts |
| last | how long it is shown, in pictures | duration |
| early | moment, less the pictures there are | delta0 |
| end | early + last | delta |

Two generations of the program count `last` differently (constants and formulas from its source):
  old, to 6.0, VALOR's time   whole pictures, the nearest number; where that is none, 8 / frame rate, at most 1
  new, from 7.0               as it is, with fractions
At 16 frames a second and more they agree, but for variable rates.

Checked picture by picture against the programs 4.2.2 (old), 7.0.2 and 9.0.2 (new), all equal: mp4, mov, flv, mkv and
webm with H.264, HEVC, MPEG-4 and VP9, 1 to 120 frames a second and variable rates, with and without B frames, with
sound or pictures that begin late, cut without encoding. Not the same as the program's:
* MPEG-TS and MPEG-PS: as many pictures, but up to a frame apart; the program counts time from another zero.
* 7.0.2, of the new, for mp4 of a variable rate with B frames, and mkv and webm with an encoder's priming before the
  sound: it still reads those as the old ones did. Here `new` reads them like 9.0.2.
* A file with several films: the first is taken here, the largest by the program.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avvp_pipe.stages.media.errors import ClipError, Status
from avvp_pipe.stages.media.packets import Packets
from avvp_pipe.stages.media.probe import DURATION_LIMIT_SECONDS, scan

__all__ = ["GRID_FPS", "Timing", "dumped_frames", "read_timing", "timing_of", "valor_grid"]

GRID_FPS = 8
"""VALOR's `-r 8`."""
FINE = 2**16
"""The program rounds moments to this part of a picture."""
NUDGE = 1 / 2**17
"""What it then adds, to keep away from middles."""
AHEAD, BEHIND = -1.1, 1.1
"""Where a frame is dropped, and where copies are made."""


@dataclass(frozen=True, slots=True)
class Timing:
    """When the F frames of a film are shown, as the ffmpeg program takes it."""

    ticks: NDArray[np.int64]
    """(F,) presentation times in units of `time_base`, rising."""
    lasts: NDArray[np.int64]
    """(F,) how long each is shown, in the same units; 0 where the container does not say."""
    time_base: Fraction
    """Seconds a tick."""
    frame_rate: Fraction
    """The container's, as FFmpeg guesses it; 0 where it cannot."""
    start: int
    """The program's time zero, in microseconds on the file's clock: where its first stream begins."""


def read_timing(path: Path, *, old: bool = True) -> Timing:
    """The timing of a file's film. Raises ClipError as `timing_of`, and where the file cannot be read."""
    return timing_of(scan(path), path, old=old)


def timing_of(packets: Packets, path: Path, *, old: bool = True) -> Timing:
    """The timing of a film out of its packets. Raises ClipError where its dump would have pictures without end."""
    timing = _timing(packets, old=old)
    tick = float(timing.time_base)
    lasts = max(timing.ticks.max(initial=0) * tick - timing.start / 1e6, timing.lasts.max(initial=0) * tick)
    if lasts > DURATION_LIMIT_SECONDS:
        reason = f"has a frame that begins late or stays for {lasts:.0f} s; up to {DURATION_LIMIT_SECONDS} s are read"
        raise ClipError(Status.TOO_LONG, f"{path} {reason}")
    return timing


def _timing(packets: Packets, *, old: bool) -> Timing:
    shown = sorted((one.pts, one.duration) for one in packets.film if one.pts is not None and not one.hidden)
    lasts = np.array([last for _, last in shown], np.int64)
    rate = packets.base_rate
    if old and packets.container.startswith("mov") and rate and _reordered(packets):
        # B frames: the old program's demuxer had no durations there, and took those of the finest rate.
        lasts[:] = _rescaled(1, 1 / (rate * packets.time_base))
    start = packets.start_microseconds
    if old and packets.container.startswith("matroska"):
        # its zero is where an encoder's priming begins, before the sound
        start = min(_rescaled(pts, base * 10**6) for pts, base in packets.begins)
    return Timing(
        ticks=np.array([pts for pts, _ in shown], np.int64),
        lasts=lasts,
        time_base=packets.time_base,
        frame_rate=Fraction(packets.guessed_rate or 0),
        start=start,
    )


def _reordered(packets: Packets) -> bool:
    """Are frames shown in another order than they are decoded in?"""
    shown = [one for one in packets.film if one.pts is not None and not one.hidden]
    return len({one.pts - (one.pts if one.dts is None else one.dts) for one in shown if one.pts is not None}) > 1


def dumped_frames(timing: Timing, *, old: bool = True) -> NDArray[np.intp]:
    """The dump of a film: for each of its n pictures the index, among the F frames, of the one it shows."""
    return valor_grid(_moments(timing, old=old), _lasts(timing, old=old))


def valor_grid(moments: list[float], lasts: list[float]) -> NDArray[np.intp]:
    """The dump: for each of its n pictures, the index of the frame it shows.

    moments: (F,) rising, the first not below -1.1; lasts: (F,). At the end the last frame is repeated as often as
    frames usually were before their successor came.

    >>> valor_grid([0.0, 1.0, 4.0], [1.0, 1.0, 1.0]).tolist()
    [0, 1, 1, 2, 2]
    """
    grid: list[int] = []
    filled = [0, 0, 0]
    for frame, (moment, last) in enumerate(zip(moments, lasts, strict=True)):
        early = moment - len(grid)
        end = early + last
        if early < 0 < end:
            early = 0.0
        copies = 1 if AHEAD <= end <= BEHIND else _whole(end) if end > 0 else 0
        before = min(_whole(early - 0.6), copies) if early > BEHIND else 0
        grid += [max(frame - 1, 0)] * before + [frame] * (copies - before)
        filled = [before, *filled[:2]]
    grid += [len(moments) - 1] * sorted(filled)[1]
    return np.array(grid, np.intp)


def _moments(timing: Timing, *, old: bool) -> list[float]:
    """When each frame is shown, in pictures from the program's zero, rounded and nudged as the program does."""
    zero = _rescaled(timing.start, 1 / (timing.time_base * 10**6))
    fine = timing.time_base * (GRID_FPS * FINE)
    found = []
    for tick in timing.ticks.tolist():
        moment = _rescaled(tick - zero, fine) / FINE
        if old or moment != round(moment):
            moment += NUDGE if moment > 0 else -NUDGE
        found.append(moment)
    return found


def _lasts(timing: Timing, *, old: bool) -> list[float]:
    """How long each frame is shown, in pictures."""
    by_rate = float(GRID_FPS / timing.frame_rate) if timing.frame_rate else 0.0
    pictures = [last or by_rate for last in (timing.lasts * (float(timing.time_base) * GRID_FPS)).tolist()]
    if not old:
        return pictures
    whole = {last: float(_whole(last)) or min(by_rate, 1.0) for last in set(pictures)}
    return [whole[last] for last in pictures]


def _whole(number: float) -> int:
    """The nearest whole number as C's lrintf finds it: in single precision, half to even."""
    return round(float(np.float32(number)))


def _rescaled(ticks: int, by: Fraction) -> int:
    """ticks * by, to the nearest whole number, half away from zero, as FFmpeg changes time bases."""
    away = (2 * abs(ticks) * by.numerator + by.denominator) // (2 * by.denominator)
    return away if ticks >= 0 else -away
