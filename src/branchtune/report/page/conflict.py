"""Gradient conflict: the cosines of the tasks' gradients at the nodes that they share, by level over time."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from branchtune.report.page.chart import Chart, Point, Series, line_chart
from branchtune.report.page.most_rows import strongest
from branchtune.report.page.run_data import RunData
from branchtune.report.page.svg import colour, short
from branchtune.tables.cells import Cells

# More lines than this in one drawing cannot be told apart: their mean and range are drawn.
LINES = 6


@dataclass(frozen=True)
class Conflict:
    """A chart per level, the legend that they share, and for one run the numbers in a table.

    Attributes:
        left_out: what to say of rows that the table lacks.
    """

    charts: list[Chart]
    legend: Sequence[Series]
    table: Cells | None = None
    left_out: str = ""


def run_conflict(run: RunData) -> Conflict | None:
    """A line for every pair of tasks at every level where they share a node; None without a record."""
    pairs = _by_pair(run)
    if not pairs:
        return None
    names = list(dict.fromkeys(name for _, name in pairs))
    few = len(names) <= LINES
    legend = [Series(name, [], colour(index)) for index, name in enumerate(names)]
    if not few:
        legend = [Series("mean of all pairs, and their range", [], colour(0))]
    charts = []
    for level in sorted({level for level, _ in pairs}):
        here = {name: line for (at, name), line in pairs.items() if at == level}
        lines = [Series(s.label, here.get(s.label, []), s.colour) for s in legend] if few else [_range(here)]
        chart = line_chart(f"level {level}: cosine", lines)
        charts += [chart] if chart else []
    return Conflict(charts, legend, *_table(pairs))


def several_conflicts(runs: Sequence[RunData], titles: Sequence[str]) -> Conflict:
    """By level the mean over all pairs, a line for each run that has a record."""
    found = [_by_pair(run) for run in runs]
    legend = [Series(title, [], colour(index), dashed=index >= 10) for index, title in enumerate(titles)]
    charts = []
    for level in sorted({level for pairs in found for level, _ in pairs}):
        here = [_range({name: line for (at, name), line in pairs.items() if at == level}) for pairs in found]
        lines = [replace(one, points=mean.points) for one, mean in zip(legend, here, strict=True)]
        chart = line_chart(f"level {level}: mean cosine", lines)
        charts += [chart] if chart else []
    return Conflict(charts, [one for one, pairs in zip(legend, found, strict=True) if pairs])


def _by_pair(run: RunData) -> dict[tuple[int, str], list[Point]]:
    found: dict[tuple[int, str], list[Point]] = {}
    for row in run.conflict:
        name = f"{row['task_a']} – {row['task_b']}"
        found.setdefault((row["level"], name), []).append((row["epoch"] + 1, row["cosine"]))
    return found


def _range(lines: dict[str, list[Point]]) -> Series:
    at: dict[float, list[float]] = {}
    for line in lines.values():
        for x, y in line:
            at.setdefault(x, []).append(y)
    epochs = sorted(at)
    mean = [(x, statistics.fmean(at[x])) for x in epochs]
    return Series("mean over pairs", mean, colour(0), band=[(min(at[x]), max(at[x])) for x in epochs])


def _table(pairs: dict[tuple[int, str], list[Point]]) -> tuple[Cells, str]:
    body = []
    shown, left_out = strongest(sorted(pairs.items()), lambda row: -statistics.fmean(y for _, y in row[1]))
    for (level, name), line in shown:
        values = [y for _, y in line]
        lowest = min(line, key=lambda point: point[1])
        numbers = [short(values[0]), f"{short(lowest[1])} (epoch {lowest[0]:.0f})", short(statistics.fmean(values))]
        body.append([str(level), name, *numbers, short(values[-1])])
    return Cells("", ["level", "tasks", "first", "lowest", "mean", "last"], body), left_out
