"""Drawings as SVG: no script, no style attribute, and colours from the style sheet, so that dark and print follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from synthmed.report.markup import Markup, number

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 36
STRIP_WIDTH, STRIP_HEIGHT = 220, 18


@dataclass(frozen=True)
class Series:
    """A line: a name for the legend, a class of the style sheet, and its points (x, y)."""

    name: str
    style: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Axes:
    """Where values fall in a drawing: ranges of both axes."""

    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place of a point, in units of the drawing."""
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * _fraction(x, self.x),
            HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * _fraction(y, self.y),
        )


def line_chart(title: str, lines: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """Draw lines over a common axis; between the first two, where they share their steps, the gap is shaded."""
    points = [point for series in lines for point in series.points]
    axes = Axes(_range([x for x, _ in points]), _padded([y for _, y in points]))
    parts = [_frame(axes, x_label, y_label)]
    if len(lines) > 1 and [x for x, _ in lines[0].points] == [x for x, _ in lines[1].points]:
        outline = [*lines[0].points, *reversed(lines[1].points)]
        parts.append(f'<polygon class="gap" points="{_points(axes, outline)}"/>')
    for series in lines:
        parts.append(f'<polyline class="line {series.style}" points="{_points(axes, series.points)}"/>')
        parts += [_dot(*axes.place(x, y), series.style, 2.5) for x, y in series.points[-1:]]
    return _svg(title, parts)


def histogram(
    title: str, sets: Sequence[Series], edges: Sequence[float], marks: Sequence[Series], x_label: str, y_label: str
) -> Markup:
    """Draw shares of each set by bin as steps, and marks as upright lines.

    Parameters
    ----------
    title : str
    sets : sequence of Series
        Points are (middle of the bin, share).
    edges : sequence of float
    marks : sequence of Series
        One point each, at its place on the axis; its share is not used.
    x_label, y_label : str
    """
    top = max((share for series in sets for _, share in series.points), default=0.0)
    axes = Axes((edges[0], edges[-1]), (0.0, 1.08 * top or 1.0))
    parts = [_frame(axes, x_label, y_label)]
    for series in sets:
        steps = [(edges[0], 0.0)]
        for (_, share), low, high in zip(series.points, edges, edges[1:], strict=False):
            steps += [(low, share), (high, share)]
        parts.append(f'<polyline class="line {series.style}" points="{_points(axes, [*steps, (edges[-1], 0.0)])}"/>')
    return _svg(title, [*parts, *(_upright(axes, mark) for mark in marks)])


def strip(low: float, value: float, high: float, span: tuple[float, float], *, mark: float | None = None) -> Markup:
    """Draw an interval with its value, and a mark to compare it with; decoration, for the numbers stand beside it."""

    def at(v: float) -> float:
        return 6 + (STRIP_WIDTH - 12) * min(1.0, max(0.0, _fraction(v, span)))

    middle = STRIP_HEIGHT / 2
    parts = [
        f'<line class="rail" x1="6" x2="{STRIP_WIDTH - 6}" y1="{middle:g}" y2="{middle:g}"/>',
        f'<line class="interval" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{middle:g}" y2="{middle:g}"/>',
    ]
    if mark is not None:
        parts.append(f'<line class="limit" x1="{at(mark):.1f}" x2="{at(mark):.1f}" y1="1" y2="{STRIP_HEIGHT - 1}"/>')
    parts.append(_dot(at(value), middle, "dot", 4))
    size = f'viewBox="0 0 {STRIP_WIDTH} {STRIP_HEIGHT}" width="{STRIP_WIDTH}" height="{STRIP_HEIGHT}"'
    return Markup(f'<svg class="strip" {size} aria-hidden="true" focusable="false">{"".join(parts)}</svg>')


def legend(entries: Sequence[tuple[str, str]]) -> Markup:
    """Return names beside their lines; entries are (style, name)."""
    items = "".join(
        f'<li><svg class="key" viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">'
        f'<line class="line {style}" x1="1" x2="27" y1="5" y2="5"/></svg>{escape(name)}</li>'
        for style, name in entries
    )
    return Markup(f'<ul class="legend">{items}</ul>')


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round numbers within a range, at most about `most`."""
    if high <= low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(title: str, parts: Sequence[str]) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
    return Markup(f"{head}{''.join(parts)}</svg>")


def _frame(axes: Axes, x_label: str, y_label: str) -> str:
    bottom, middle = HEIGHT - BOTTOM, (HEIGHT - BOTTOM + TOP) / 2
    parts = [f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>']
    for value in ticks(*axes.y):
        y = axes.place(axes.x[0], value)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in ticks(*axes.x):
        x = axes.place(value, axes.y[0])[0]
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{number(value)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH) / 2:g}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f'transform="rotate(-90 11 {middle:g})"'
    return "".join([*parts, f'<text x="11" y="{middle:g}" text-anchor="middle" {turned}>{escape(y_label)}</text>'])


def _upright(axes: Axes, mark: Series) -> str:
    x = axes.place(mark.points[0][0], axes.y[0])[0]
    return f'<line class="line {mark.style}" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'


def _points(axes: Axes, points: Sequence[tuple[float, float]]) -> str:
    return " ".join("{:.1f},{:.1f}".format(*axes.place(x, y)) for x, y in points)


def _dot(x: float, y: float, style: str, radius: float) -> str:
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}"/>'


def _fraction(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return (value - low) / (high - low) if high > low else 0.5


def _range(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def _padded(values: Sequence[float]) -> tuple[float, float]:
    low, high = _range(values)
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin
