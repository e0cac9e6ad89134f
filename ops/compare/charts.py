"""Charts as inline SVG: no script, no font, no file from anywhere. A chart is a string that a page holds.

Small on purpose: lines, points and bars over linear or logarithmic axes are all that a comparison needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

COLOURS: Final = ("#1f6fb4", "#d1591f", "#2f8f4e", "#8a4fa3", "#b3861b", "#5b6770")
"""Told apart by most colour-blind readers, on white and on paper; lines are dashed differently as well."""
DASHES: Final = ("", "7 4", "2 3", "9 3 2 3", "4 4", "1 4")
WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 30, 46


@dataclass(frozen=True)
class Series:
    """Points of one run. `marks`: a word beside each point, where given."""

    name: str
    points: tuple[tuple[float, float], ...]
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    title: str
    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """0 to 1 along the axis."""
        if self.log:
            low, high, value = math.log10(self.low), math.log10(self.high), math.log10(max(value, self.low))
        else:
            low, high = self.low, self.high
        return 0.5 if high == low else min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self) -> list[float]:
        """Round numbers along it."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found = [factor * 10**power for power in range(first, last + 1) for factor in (1, 2, 5)]
            inside = [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]
            return inside if len(inside) <= 9 else [tick for tick in inside if f"{tick:e}".startswith("1")]
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _step(span: float) -> float:
    if span <= 0:
        return 1.0
    raw = span / 5
    power: float = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


def axis(title: str, values: Sequence[float], *, log: bool = False, zero: bool = False) -> Axis:
    """An axis that holds all values."""
    known = [value for value in values if value > 0 or not log] or [1.0]
    low, high = min(known), max(known)
    if log:
        return Axis(title, low, high if high > low else low * 10, log=True)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return Axis(title, 0.0 if zero else max(0.0, low - room) if low >= 0 else low - room, high + room)


def lines(title: str, x: Axis, y: Axis, series: Sequence[Series], *, dots: bool = False) -> str:
    """One line per series."""
    body = _frame(title, x, y)
    across, up = _scales(x, y)
    for number, one in enumerate(series):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in one.points)
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        for index, (a, b) in enumerate(one.points if dots else ()):
            mark = one.marks[index] if index < len(one.marks) else ""
            said = f"{one.name}: {x.title} {a:,.4g}, {y.title} {b:,.4g}{', ' + mark if mark else ''}"
            body.append(
                f'<circle cx="{across(a):.1f}" cy="{up(b):.1f}" r="4" fill="{colour}"><title>{escape(said)}</title></circle>'
            )
            if mark:
                body.append(_text(across(a) + 7, up(b) - 6, mark, size=11, colour=colour))
    return _svg(title, body, series)


def bars(title: str, y: Axis, groups: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]]) -> str:
    """Groups of bars, each (series, value, smallest, largest) with the repeats' range as a whisker."""
    x = Axis("", 0, max(1, len(groups)))
    body = _frame(title, x, y, x_ticks=False)
    across, up = _scales(x, y)
    names = list(dict.fromkeys(name for _, values in groups for name, *_ in values))
    for index, (group, values) in enumerate(groups):
        wide = 0.8 / max(1, len(values))
        for number, (name, value, low, high) in enumerate(values):
            left, right = across(index + 0.1 + number * wide), across(index + 0.1 + (number + 0.9) * wide)
            top, bottom = up(value), up(y.low)
            colour = COLOURS[names.index(name) % len(COLOURS)]
            said = f"{name}, {group}: {value:,.4g} ({low:,.4g} to {high:,.4g})"
            body.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{max(0.5, bottom - top):.1f}" '
                f'fill="{colour}"><title>{escape(said)}</title></rect>'
            )
            middle = (left + right) / 2
            if high > low:
                body.append(f'<path d="M{middle:.1f} {up(low):.1f}V{up(high):.1f}" stroke="#222" stroke-width="1.5"/>')
            body.append(_text(middle, up(high) - 5, f"{value:,.3g}", anchor="middle", size=11))
        body.append(_text(across(index + 0.5), HEIGHT - BOTTOM + 17, group, anchor="middle"))
    return _svg(title, body, [Series(name, ()) for name in names])


def _scales(x: Axis, y: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return (lambda value: LEFT + x.at(value) * wide), (lambda value: HEIGHT - BOTTOM - y.at(value) * high)


def _frame(title: str, x: Axis, y: Axis, *, x_ticks: bool = True) -> list[str]:
    across, up = _scales(x, y)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    body = [_text(LEFT, 18, title, size=14, weight="600")]
    for tick in y.ticks():
        body.append(f'<path d="M{LEFT} {up(tick):.1f}H{right}" stroke="#e3e6e9"/>')
        body.append(_text(LEFT - 7, up(tick) + 4, _number(tick), anchor="end"))
    for tick in x.ticks() if x_ticks else ():
        body.append(f'<path d="M{across(tick):.1f} {TOP}V{bottom}" stroke="#eef0f2"/>')
        body.append(_text(across(tick), bottom + 17, _number(tick), anchor="middle"))
    body.append(f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="#8a9299"/>')
    body.append(_text((LEFT + right) / 2, HEIGHT - 10, x.title, anchor="middle"))
    middle = (TOP + bottom) / 2
    body.append(f'<g transform="rotate(-90 14 {middle:.0f})">{_text(14, middle, y.title, anchor="middle")}</g>')
    return body


def _svg(title: str, body: Sequence[str], series: Sequence[Series]) -> str:
    rows = math.ceil(len(series) / 2)
    legend = []
    for number, one in enumerate(series):
        left, top = LEFT + (number % 2) * (WIDTH - LEFT) / 2, HEIGHT + 14 + 18 * (number // 2)
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        legend.append(
            f'<path d="M{left:.0f} {top - 4}h22" stroke="{colour}" stroke-width="3" stroke-dasharray="{dash}"/>'
        )
        legend.append(_text(left + 28, top, one.name))
    high = HEIGHT + 10 + 18 * rows
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" width="{WIDTH}" height="{high}" '
        f'role="img" aria-label="{escape(title)}">{"".join(body)}{"".join(legend)}</svg>'
    )


def _number(value: float) -> str:
    """A tick: 10,000 rather than 1e+04."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#333", weight: str = "400"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{escape(text)}</text>"
    )
