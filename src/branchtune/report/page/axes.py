"""The axes of a chart: numbers -> places in the drawing, ticks and grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from branchtune.report.page.svg import element, short, text, ticks, told_apart

WIDTH, HEIGHT = 330.0, 200.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 26.0, 36.0


class Axes:
    """Both axes of a chart whose drawing is `width` by `HEIGHT`.

    Args:
        xs, ys: everything that will be drawn; at least one of both.
        log_x: a logarithmic x axis, on which zero stands left of the smallest positive number.
        width: of the drawing.
    """

    def __init__(self, xs: Sequence[float], ys: Sequence[float], *, log_x: bool = False, width: float = WIDTH) -> None:
        self.log, self.width = log_x, width
        self.zero = min([x for x in xs if x > 0], default=1.0) / 3 if log_x and min(xs) <= 0 else None
        self.x_low, self.x_high = _widened([self._scaled(x) for x in xs], 0.05 if log_x else 0.0, alone=0.5)
        # Half of a single value: a metric that cannot be negative has no tick below zero.
        self.y_low, self.y_high = _widened(ys, 0.06, alone=abs(ys[0]) / 2 or 0.5)

    def x(self, value: float) -> float:
        share = (self._scaled(value) - self.x_low) / (self.x_high - self.x_low)
        return LEFT + (self.width - LEFT - RIGHT) * share

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.y_high - value) / (self.y_high - self.y_low)

    def frame(self, title: str, x_label: str, write_x: Callable[[float], str] = short) -> list[Markup]:
        """Title, grid, ticks and the label of the x axis."""
        right, bottom = self.width - RIGHT, HEIGHT - BOTTOM
        parts = [text(LEFT, 14, title, class_="head")]
        found = ticks(self.y_low, self.y_high, 5)
        for tick, written in zip(found, told_apart(found), strict=True):
            place = self.y(tick)
            parts.append(element("path", d=f"M{LEFT:g} {place:.1f} H{right:g}", class_="zero" if tick == 0 else "grid"))
            parts.append(text(LEFT - 6, place + 4, written.replace("-", "−"), class_="small", text_anchor="end"))
        for tick in self._x_ticks():
            parts.append(text(self.x(tick), bottom + 15, write_x(tick), class_="small", text_anchor="middle"))
        parts.append(element("path", d=f"M{LEFT:g} {bottom:g} H{right:g}", class_="axis"))
        parts.append(text((LEFT + right) / 2, bottom + 30, x_label, class_="small", text_anchor="middle"))
        return parts

    def _scaled(self, value: float) -> float:
        if not self.log:
            return value
        return math.log10(value if self.zero is None else max(value, self.zero))

    def _x_ticks(self) -> list[float]:
        if not self.log:
            found = ticks(self.x_low, self.x_high)
            return [tick for tick in found if tick == round(tick)] or found  # epochs are whole
        powers = range(math.floor(self.x_low), math.ceil(self.x_high) + 1)
        steps = (1, 2, 5) if self.x_high - self.x_low < 1.5 else (1, 3) if self.x_high - self.x_low < 2.5 else (1,)
        found = [factor * 10.0**power for power in powers for factor in steps]
        least = self.x_low if self.zero is None else math.log10(2 * self.zero)
        shown = [tick for tick in found if least <= math.log10(tick) <= self.x_high]
        return shown if self.zero is None else [0.0, *shown]


def _widened(values: Sequence[float], share: float, alone: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = share * (high - low) if high > low else alone
    return low - room, high + room
