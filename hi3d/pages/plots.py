"""Plots with error bars as SVG, in the colors of the page that holds them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hi3d.pages.markup import Markup, element

WIDTH, HEIGHT, ROW = 360, 240, 26
MARGIN = 46
CAP = 4
"""Half the length of the stroke at an error bar's end."""
CHARACTER = 6.2
"""Width of a letter of the labels."""


@dataclass(frozen=True)
class Point:
    """A mean with its standard error."""

    label: str
    value: float | None
    error: float | None = None


def line_plot(title: str, x_label: str, xs: Sequence[float], points: Sequence[Point]) -> Markup:
    """Means over numbers, joined by a line.

    Args:
        title: what the means are of, with unit.
        x_label: what the numbers are.
        xs: one for each point.
        points: those without a value are left out.
    """
    shown = sorted(
        (x, point.value, point.error or 0.0)
        for x, point in zip(xs, points, strict=True)
        if point.value is not None
    )
    if not shown:
        return _framed(title, WIDTH, HEIGHT, [])
    across = _Axis.over([x for x, _, _ in shown], MARGIN + 10, WIDTH - 20)
    up = _Axis.over([v + s * e for _, v, e in shown for s in (-1, 1)], HEIGHT - MARGIN, 30)
    drawn = _grid_lines(up, MARGIN, WIDTH - 10)
    for x in sorted({x for x, _, _ in shown}):
        drawn.append(_text(across(x), HEIGHT - MARGIN + 18, f"{x:g}", "middle"))
    drawn.append(_text((MARGIN + WIDTH) / 2, HEIGHT - 8, x_label, "middle"))
    path = " L ".join(f"{across(x):.1f} {up(value):.1f}" for x, value, _ in shown)
    drawn.append(element("path", d=f"M {path}", class_="curve"))
    for x, value, error in shown:
        ends = up(value - error), up(value + error)
        drawn += _bar((across(x), ends[0]), (across(x), ends[1]), error > 0)
        drawn.append(element("circle", cx=_short(across(x)), cy=_short(up(value)), r=4))
    return _framed(title, WIDTH, HEIGHT, drawn)


def dot_plot(title: str, points: Sequence[Point]) -> Markup:
    """Means of named things, one below the other.

    Args:
        title: what the means are of, with unit.
        points: those without a value have a dash.
    """
    spread = [
        p.value + s * (p.error or 0.0) for p in points if p.value is not None for s in (-1, 1)
    ]
    left = min(180, 16 + CHARACTER * max((len(point.label) for point in points), default=0))
    height = 34 + ROW * len(points) + 26
    if not spread:
        return _framed(title, WIDTH, height, [])
    across = _Axis.over(spread, left + 10, WIDTH - 20)
    drawn: list[Markup] = []
    for tick in across.ticks:
        at = _short(across(tick))
        drawn.append(element("line", x1=at, x2=at, y1=30, y2=height - 26, class_="grid"))
        drawn.append(_text(across(tick), height - 10, f"{tick:g}", "middle"))
    for row, point in enumerate(points):
        y = 34 + ROW * (row + 0.5)
        drawn.append(_text(left, y + 4, _clipped(point.label, left), "end"))
        if point.value is None:
            drawn.append(_text((left + WIDTH) / 2, y + 4, "–", "middle"))
            continue
        error = point.error or 0.0
        ends = (across(point.value - error), y), (across(point.value + error), y)
        drawn += _bar(*ends, error > 0)
        drawn.append(element("circle", cx=_short(across(point.value)), cy=_short(y), r=4))
    return _framed(title, WIDTH, height, drawn)


@dataclass(frozen=True)
class _Axis:
    """Numbers from `low` to `high` at places from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> "_Axis":
        """With room beside the outermost; equal values are in the middle."""
        low, high = min(values), max(values)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(low - room, high + room, start, end)

    def __call__(self, value: float) -> float:
        """The place of a value."""
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Three to six round numbers within."""
        rough = (self.high - self.low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough))
        first = math.ceil(self.low / step)
        return [round(n * step, 10) for n in range(first, math.floor(self.high / step) + 1)]


def _grid_lines(axis: _Axis, left: float, right: float) -> list[Markup]:
    drawn = []
    for tick in axis.ticks:
        at = _short(axis(tick))
        drawn.append(element("line", x1=left, x2=right, y1=at, y2=at, class_="grid"))
        drawn.append(_text(left - 4, axis(tick) + 4, f"{tick:g}", "end"))
    return drawn


def _bar(first: tuple[float, float], last: tuple[float, float], shown: bool) -> list[Markup]:
    """An error bar with its two ends."""
    if not shown:
        return []
    (x1, y1), (x2, y2) = first, last
    dx, dy = (CAP, 0) if x1 == x2 else (0, CAP)
    strokes = [(x1, y1, x2, y2), *((x - dx, y - dy, x + dx, y + dy) for x, y in (first, last))]
    return [
        element("line", x1=_short(a), y1=_short(b), x2=_short(c), y2=_short(d), class_="bar")
        for a, b, c, d in strokes
    ]


def _framed(title: str, width: float, height: float, drawn: Sequence[Markup]) -> Markup:
    heading = _text(8, 16, title, "start", "title")
    nothing = [] if drawn else [_text(width / 2, height / 2, "no values", "middle")]
    box = f"0 0 {width:g} {height:g}"
    return element(
        "svg", heading, *drawn, *nothing, viewBox=box, class_="plot", role="img", aria_label=title
    )


def _text(x: float, y: float, text: str, anchor: str, class_: str | None = None) -> Markup:
    return element("text", text, x=_short(x), y=_short(y), text_anchor=anchor, class_=class_)


def _clipped(label: str, width: float) -> str:
    most = max(4, int(width / CHARACTER) - 2)
    return label if len(label) <= most else f"{label[: most - 1]}…"


def _short(value: float) -> str:
    return f"{value:.1f}"
