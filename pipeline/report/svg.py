"""Charts as inline SVG: F1 over thresholds, and training curves. All text in them is escaped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from avvp_pipe.pipeline.report.records import ClassCurve, History, Percent

__all__ = ["curve_chart", "history_chart", "said"]

WIDTH, HEIGHT = 220, 120
LEFT, RIGHT, TOP, BOTTOM = 32, 6, 8, 18
WIDE, TALL = 460, 200
TELLS = {"audio": "heard", "visual": "seen"}


@dataclass(frozen=True, slots=True)
class _Frame:
    """A rectangle of the picture that numbers are drawn in."""

    width: int
    height: int
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        return (
            round(LEFT + min(max(across, 0), 1) * (self.width - LEFT - RIGHT), 1),
            round(self.height - BOTTOM - min(max(up, 0), 1) * (self.height - TOP - BOTTOM), 1),
        )

    def line(self, xs: Sequence[float], ys: Sequence[Percent], kind: str) -> Markup:
        points = " ".join("{},{}".format(*self.at(x, y)) for x, y in zip(xs, ys, strict=True) if y is not None)
        return Markup('<polyline class="{}" points="{}"/>').format(kind, points)

    def axes(self) -> Markup:
        """Two lines, and the ends of each axis in figures."""
        (left, bottom), (right, top) = self.at(self.x[0], self.y[0]), self.at(self.x[1], self.y[1])
        drawn = Markup('<path class="axis" d="M{0},{1}V{2}H{3}"/>').format(left, top, bottom, right)
        for value, anchor, x in ((self.x[0], "start", left), (self.x[1], "end", right)):
            drawn += Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                x, self.height - 5, anchor, short(value)
            )
        for value, y in ((self.y[0], bottom), (self.y[1], top + 7)):
            drawn += Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(left - 3, y, short(value))
        return drawn


def short(value: float) -> str:
    """A number in three digits.

    >>> short(0.123456), short(100.0), short(-12.5)
    ('0.123', '100', '-12.5')
    """
    return f"{value:.3g}"


def said(curve: ClassCurve, percentiles: Sequence[int]) -> str:
    """What a chart of one class shows, in words.

    >>> said(ClassCurve("Dog", "audio", (0.0, 1.0), (50.0, 80.0), 0.5, 80.0, 75.0, 85.7, (0.25, 0.75)), (5, 95))
    'Dog, heard: threshold 0.5, F1 80.0 %, precision 75.0 %, recall 85.7 %; percentiles 5 to 95 of draws: 0.25 to 0.75'
    """
    if math.isinf(curve.chosen):
        told = "never labelled" if curve.chosen > 0 else "labelled in every second"
    else:
        told = f"threshold {short(curve.chosen)}"
    for name, value in (("F1", curve.chosen_f1), ("precision", curve.precision), ("recall", curve.recall)):
        told += "" if value is None else f", {name} {value:.1f} %"
    if curve.spread is not None:
        low, high = (short(value) for value in curve.spread)
        told += f"; percentiles {' to '.join(map(str, percentiles))} of draws: {low} to {high}"
    return f"{curve.name}, {TELLS[curve.modality]}: {told}"


def curve_chart(curve: ClassCurve, percentiles: Sequence[int]) -> Markup:
    """F1 over the threshold, the chosen point (at the left edge where all is labelled), and as a band how far it moves.

    The curve must have points.
    """
    words = said(curve, percentiles)
    ends = [*curve.thresholds, *(one for one in (curve.chosen, *(curve.spread or ())) if math.isfinite(one))]
    frame = _Frame(WIDTH, HEIGHT, (min(ends), max(ends)), (0, 100))
    drawn = frame.axes()
    if curve.spread is not None:
        (low, top), (high, bottom) = (
            frame.at(x, y) for x, y in zip(_finite(curve.spread, ends), (100, 0), strict=True)
        )
        drawn += Markup('<rect class="spread" x="{}" y="{}" width="{}" height="{}"/>').format(
            low, top, max(round(high - low, 1), 1), bottom - top
        )
    drawn += frame.line(curve.thresholds, curve.f1, f"curve {curve.modality}")
    if curve.chosen < math.inf:
        x, y = frame.at(max(curve.chosen, min(ends)), curve.chosen_f1 if curve.chosen_f1 is not None else 0)
        drawn += Markup(
            '<path class="chosen" d="M{0},{1}V{2}"/><circle class="chosen" cx="{0}" cy="{3}" r="3.5"/>'
        ).format(x, TOP, HEIGHT - BOTTOM, y)
    return _picture(WIDTH, HEIGHT, words, drawn)


def _finite(pair: tuple[float, float], ends: Sequence[float]) -> tuple[float, float]:
    low, high = (min(max(value, min(ends)), max(ends)) for value in pair)
    return low, high


def history_chart(history: History, series: Mapping[str, Sequence[Percent]], what: str) -> Markup:
    """Several quantities over the epochs, told apart by dashes and colours; the best epoch as a line."""
    values = [value for column in series.values() for value in column if value is not None]
    if not values:
        return Markup("")
    low, high = min(0.0, *values), max(values)
    frame = _Frame(WIDE, TALL, (history.epochs[0], max(history.epochs[-1], history.epochs[0] + 1)), (low, high or 1.0))
    drawn = frame.axes()
    if history.best_epoch is not None:
        x, _ = frame.at(history.best_epoch, 0)
        drawn += Markup('<path class="chosen" d="M{},{}V{}"/>').format(x, TOP, TALL - BOTTOM)
    for place, column in enumerate(series.values()):
        drawn += frame.line(history.epochs, column, f"curve s{place}")
        if len(history.epochs) == 1 and column[0] is not None:
            drawn += Markup('<circle class="chosen" cx="{}" cy="{}" r="2"/>').format(
                *frame.at(history.epochs[0], column[0])
            )
    return _picture(WIDE, TALL, f"{history.title}, {what} over epochs: {_ends(series)}", drawn)


def _ends(series: Mapping[str, Sequence[Percent]]) -> str:
    told = []
    for name, column in series.items():
        known = [value for value in column if value is not None]
        told.append(f"{name} from {short(known[0])} to {short(known[-1])}")
    return "; ".join(told)


def _picture(width: int, height: int, words: str, drawn: Markup) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>{}</svg>').format(
        width, height, words, words, drawn
    )
