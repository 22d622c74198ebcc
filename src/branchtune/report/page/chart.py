"""Line charts as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from branchtune.report.page.axes import HEIGHT, WIDTH, Axes
from branchtune.report.page.svg import drawing, element, short

Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line, or the points of one kind.

    Attributes:
        label: in the legend.
        points: in the order of x.
        colour: of CSS.
        dashed: instead of solid.
        band: lower and upper edge at the same x as the points, or empty.
    """

    label: str
    points: Sequence[Point]
    colour: str
    dashed: bool = False
    band: Sequence[Point] = ()


@dataclass(frozen=True)
class Chart:
    """A finished drawing and the legend that belongs below it; charts beside each other may share one."""

    svg: Markup
    legend: Sequence[Series]


def line_chart(title: str, series: Sequence[Series], x_label: str = "epoch") -> Chart | None:
    """Lines over a common x axis; None where there is no point at all.

    Args:
        title: above the lines, what y is.
        series: each a line; a single point is drawn as a dot.
        x_label: below the axis.
    """
    shown = [one for one in series if one.points]
    xs = [x for one in shown for x, _ in one.points]
    if not xs:
        return None
    ys = [y for one in shown for _, y in one.points] + [y for one in shown for pair in one.band for y in pair]
    axes = Axes(xs, ys)
    parts = axes.frame(title, x_label)
    for one in shown:
        if one.band:
            upper = [(x, high) for (x, _), (_, high) in zip(one.points, one.band, strict=True)]
            lower = [(x, low) for (x, _), (low, _) in zip(one.points, one.band, strict=True)]
            path = f"{_path(axes, upper)} L{_path(axes, lower[::-1])[1:]} Z"
            parts.append(element("path", d=path, class_="band", style=f"fill: {one.colour}"))
        dash = "5 4" if one.dashed else None
        path, style = _path(axes, one.points), f"stroke: {one.colour}"
        parts.append(element("path", d=path, class_="line", style=style, stroke_dasharray=dash))
        if len(one.points) <= 12:
            parts += [dot(axes.x(x), axes.y(y), one.colour, 2.2) for x, y in one.points]
    return Chart(drawing(WIDTH, HEIGHT, parts, _said(title, shown, x_label)), series)


def dot(x: float, y: float, fill: str, radius: float) -> Markup:
    return element("circle", cx=x, cy=y, r=radius, style=f"fill: {fill}")


def _path(axes: Axes, points: Sequence[Point]) -> str:
    return "M" + " L".join(f"{axes.x(x):.1f} {axes.y(y):.1f}" for x, y in points)


def _said(title: str, series: Sequence[Series], x_label: str) -> str:
    ends = (
        f"{one.label} from {short(one.points[0][1])} at {x_label} {short(one.points[0][0])} "
        f"to {short(one.points[-1][1])} at {short(one.points[-1][0])}"
        for one in series
    )
    return f"{title}: {'; '.join(ends)}"
