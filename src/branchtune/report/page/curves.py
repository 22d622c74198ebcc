"""Learning curves: of one run, training against validation; of several, their validations."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from branchtune.report.page.chart import Chart, Point, Series, line_chart
from branchtune.report.page.run_data import RunData
from branchtune.report.page.svg import colour, short
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import arrow

#: the rows of a metrics.csv by task
Metrics = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Charts:
    """Charts of one kind, one per task."""

    title: str
    charts: list[Chart]


@dataclass(frozen=True)
class Curves:
    """All charts, the legend that they share, and first, best and last values in a table."""

    groups: list[Charts]
    legend: Sequence[Series]
    table: Cells | None = None


def run_curves(run: RunData) -> Curves:
    """Loss on training and validation split, and the headline metric on the latter, of every task."""
    losses, heads = [], []
    for number, task in enumerate(run.tasks):
        rows, metric = run.metrics.get(task, []), run.results.headline[task]
        both = [
            Series("training", points(rows, "train_loss"), colour(number), dashed=True),
            Series("validation", points(rows, "val_loss"), colour(number)),
        ]
        losses.append(line_chart(task, both))
        title = _head(task, metric, run.results.higher_is_better[task])
        heads.append(line_chart(title, [Series("validation", points(rows, metric), colour(number))]))
    legend = [Series("training", [], "var(--muted)", dashed=True), Series("validation", [], "var(--muted)")]
    return Curves(_groups(heads, losses), legend, _table(run))


def several_curves(
    named: Mapping[str, Sequence[Metrics]], headline: Mapping[str, str], higher: Mapping[str, bool]
) -> Curves:
    """The headline metric and the loss on the validation split, a line for each name.

    Args:
        named: by name the metrics of one run or more (seeds), whose mean is drawn.
        headline: metric by task.
        higher: whether more of it is better.
    """
    legend = [Series(name, [], colour(index), dashed=index >= 10) for index, name in enumerate(named)]

    def lines(task: str, key: str) -> list[Series]:
        return [
            Series(one.label, _mean([points(run.get(task, []), key) for run in runs]), one.colour, one.dashed)
            for one, runs in zip(legend, named.values(), strict=True)
        ]

    heads = [line_chart(_head(task, metric, higher[task]), lines(task, metric)) for task, metric in headline.items()]
    return Curves(_groups(heads, [line_chart(task, lines(task, "val_loss")) for task in headline]), legend)


def _head(task: str, metric: str, higher: bool) -> str:
    return f"{task}: {metric} {arrow(higher)}"


def _groups(heads: Sequence[Chart | None], losses: Sequence[Chart | None]) -> list[Charts]:
    return [
        Charts("Headline metric", [chart for chart in heads if chart]),
        Charts("Loss", [chart for chart in losses if chart]),
    ]


def points(rows: Sequence[Mapping[str, float]], key: str) -> list[Point]:
    """Epoch, from 1, and value."""
    return [(row["epoch"] + 1, row[key]) for row in rows if key in row]


def _mean(several: Sequence[Sequence[Point]]) -> list[Point]:
    """At the epochs that all have."""
    found = [dict(one) for one in several if one]
    if not found:
        return []
    common = [x for x in found[0] if all(x in one for one in found)]
    return [(x, statistics.fmean(one[x] for one in found)) for x in common]


def _table(run: RunData) -> Cells | None:
    body = []
    for task in run.tasks:
        rows, metric = run.metrics.get(task, []), run.results.headline[task]
        losses = (("training loss", "train_loss", False), ("validation loss", "val_loss", False))
        for title, key, higher in (*losses, (metric, metric, run.results.higher_is_better[task])):
            line = points(rows, key)
            if line:
                best = (max if higher else min)(line, key=lambda point: point[1])
                at = f"{short(best[1])} (epoch {best[0]:.0f})"
                body.append([task, title, short(line[0][1]), at, short(line[-1][1])])
    return Cells("", ["task", "value", "first", "best", "last"], body) if body else None
