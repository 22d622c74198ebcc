"""Scatter plots as SVG: quality against cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from branchtune.report.page.axes import HEIGHT, Axes
from branchtune.report.page.chart import Chart, Point, Series, dot
from branchtune.report.page.svg import drawing, element
from branchtune.tables.numbers import rounded

WIDTH = 480.0


@dataclass(frozen=True)
class Mark:
    """One point: where it is, how far its bar reaches up and down (or None), and what it is of."""

    x: float
    y: float
    spread: float | None
    of: Series


def scatter_chart(
    title: str, x_label: str, marks: Sequence[Mark], front: Sequence[Point], write_x: Callable[[int], str]
) -> Chart:
    """Points over a logarithmic x axis, with a line of steps through `front`.

    Args:
        title: above the points, what y is.
        x_label: below the axis.
        marks: at least one.
        front: in the order of x.
        write_x: a tick of the x axis as text.
    """
    reach = [mark.y + sign * (mark.spread or 0.0) for mark in marks for sign in (-1, 1)]
    axes = Axes([mark.x for mark in marks], reach, log_x=True, width=WIDTH)
    parts = axes.frame(title, x_label, lambda tick: write_x(round(tick)))
    if front:
        steps = [f"M{axes.x(front[0][0]):.1f} {axes.y(front[0][1]):.1f}"]
        steps += [f"H{axes.x(x):.1f} V{axes.y(y):.1f}" for x, y in front[1:]]
        parts.append(element("path", d=" ".join(steps), class_="front"))
    for mark in marks:
        if mark.spread:
            top, bottom = axes.y(mark.y + mark.spread), axes.y(mark.y - mark.spread)
            path, style = f"M{axes.x(mark.x):.1f} {top:.1f} V{bottom:.1f}", f"stroke: {mark.of.colour}"
            parts.append(element("path", d=path, class_="line", style=style))
        parts.append(_named(dot(axes.x(mark.x), axes.y(mark.y), mark.of.colour, 4.5), mark, write_x))
    said = "; ".join(_words(mark, write_x) for mark in marks)
    return Chart(drawing(WIDTH, HEIGHT, parts, f"{title} against {x_label}: {said}"), [mark.of for mark in marks])


def _named(point: Markup, mark: Mark, write_x: Callable[[int], str]) -> Markup:
    return element("g", element("title", _words(mark, write_x)) + point)


def _words(mark: Mark, write_x: Callable[[int], str]) -> str:
    return f"{mark.of.label}: {rounded(mark.y):+.2f} at {write_x(round(mark.x))}"
