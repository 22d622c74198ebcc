"""delta_m against what it costs: parameters inside the backbone, and MACs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from branchtune.atomic import write_bytes
from branchtune.comparison.methods import SINGLE, TITLES
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Row, rows

# What delta_m is drawn against: the label of the axis, and the cost of a row.
PANELS: tuple[tuple[str, Callable[[Row], int]], ...] = (
    ("trainable parameters inside the backbone (single-task: of all models)", lambda row: row.inside),
    ("backbone MACs per image, all tasks", lambda row: row.macs["backbone"]),
)


def pareto(comparison: Comparison, path: Path) -> None:
    """Write both plots as one SVG; bars are standard deviations over seeds, the line joins what no method beats.

    The file's description holds the numbers that are drawn, by which a plot of older results can be told.
    """
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    points = rows(comparison)
    for axes, (label, cost) in zip(figure.subplots(1, 2, sharey=True), PANELS, strict=True):
        _panel(axes, [(cost(row), row) for row in points], label)
    figure.suptitle(comparison.name)
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": comparison.name}):  # else every file has other ids
        FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None, "Description": drawn(comparison)})
    write_bytes(path, file.getvalue())


def drawn(comparison: Comparison) -> str:
    """Method, costs, mean and deviation of every point, a line each."""
    lines = []
    for row in rows(comparison):
        costs = " ".join(str(cost(row)) for _, cost in PANELS)
        lines.append(f"{row.method} {costs} {row.delta_m.mean:.6g} {row.delta_m.deviation:.6g}")
    return "\n".join(lines)


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The pairs of cost and quality to which no other one of at most their cost is equal in quality, cheapest first."""
    ordered = sorted(points, key=lambda point: (point[0], -point[1]))
    return [point for i, point in enumerate(ordered) if all(point[1] > other[1] for other in ordered[:i])]


def _panel(axes: Axes, points: list[tuple[int, Row]], label: str) -> None:
    for index, (cost, row) in enumerate(points):
        deviation = None if row.delta_m.count < 2 else row.delta_m.deviation
        marker = "s" if row.method == SINGLE else "o"
        axes.errorbar(cost, row.delta_m.mean, deviation, fmt=marker, color=f"C{index}", label=TITLES[row.method])
    best = front([(cost, row.delta_m.mean) for cost, row in points])
    axes.step(*zip(*best, strict=True), where="post", color="0.7", zorder=0)
    axes.set_xscale("symlog", linthresh=1e4) if min(cost for cost, _ in points) == 0 else axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("Δm %")
    axes.grid(alpha=0.3)
    if label.startswith("backbone"):
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
