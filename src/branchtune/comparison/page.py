"""The report of a comparison: tables, differences, what each method costs, tuned rates, learning curves."""

from __future__ import annotations

from pathlib import Path

from branchtune.atomic import write_text
from branchtune.comparison.methods import SINGLE, TITLES
from branchtune.comparison.pareto import PANELS, front
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import rows
from branchtune.comparison.tables import cost, differences, parameters, quality
from branchtune.report.page.chart import Chart, Series
from branchtune.report.page.curves import Curves, several_curves
from branchtune.report.page.html import Section, render
from branchtune.report.page.run_data import read_metrics
from branchtune.report.page.scatter import Mark, scatter_chart
from branchtune.report.page.svg import colour
from branchtune.report.page.write import NAME as PAGE
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import count

NAME = "comparison.json"


def write_comparison_report(folder: Path, out: Path | None = None) -> Path:
    """The report of the comparison in `folder`; its runs' learning curves where they are still beside it.

    Args:
        folder: which holds comparison.json.
        out: the file; default report.html in the folder.

    Raises:
        UserError: the comparison or a metrics.csv is damaged, or the page cannot be written.
    """
    comparison, target = Comparison.load(folder / NAME), out or folder / PAGE
    write_text(target, comparison_page(comparison, folder))
    return target


def comparison_page(comparison: Comparison, folder: Path) -> str:
    """The page.

    Args:
        comparison: its numbers.
        folder: where its runs are.
    """
    first = next(iter(comparison.runs.values()))[0]
    origin = [
        ["command", comparison.command],
        ["hardware", first.hardware],
        ["versions", ", ".join(f"{name} {version}" for name, version in first.versions.items())],
    ]
    sections = [
        Section("results", "Results", "tables", [_mean_first(quality(comparison)), differences(comparison)]),
        Section("pareto", "Quality against cost", "pareto", _pareto(comparison)),
        Section("cost", "Cost", "tables", [parameters(comparison), cost(comparison)]),
        Section("curves", "Learning curves", "curves", _curves(comparison, folder)),
        Section("origin", "Where this comes from", "origin", [Cells(comparison.name, ["", ""], origin)]),
    ]
    if any(tuning.scores for tuning in comparison.tuning.values()):
        sections.insert(3, Section("rates", "Tuned learning rates", "tables", [rates(comparison)]))
    facts = [
        ("methods", str(1 + len(comparison.runs))),
        ("tasks", ", ".join(first.headline)),
        ("seeds", ", ".join(map(str, comparison.seeds))),
        ("Δm over", comparison.reference.id),
    ]
    return render(comparison.name, facts, sections)


def rates(comparison: Comparison) -> Cells:
    """The chosen multiple of every method's rate, and the validation score of each that was tried."""
    tried = list(dict.fromkeys(factor for tuning in comparison.tuning.values() for factor in tuning.scores))
    body = [
        [TITLES[method], f"{t.factor:g}", *(f"{t.scores[f]:+.2f}" if f in t.scores else "–" for f in tried)]
        for method, t in comparison.tuning.items()
    ]
    title = "Multiple of the configuration's rate; validation score of each that was tried, in percent over the first"
    return Cells(title, ["method", "chosen", *(f"× {factor}" for factor in tried)], body)


def _mean_first(cells: Cells) -> Cells:
    """With the last column, delta_m, before the tasks: it must be seen where a table is wider than the screen."""
    heading, *body = [[row[0], row[-1], *row[1:-1]] for row in (cells.heading, *cells.body)]
    return Cells(cells.title, heading, body)


def _pareto(comparison: Comparison) -> dict[str, list[Chart] | list[Series]]:
    points = rows(comparison)
    legend = [Series(TITLES[row.method], [], colour(index)) for index, row in enumerate(points)]
    charts = []
    for label, of in PANELS:
        marks = [
            Mark(of(row), row.delta_m.mean, None if row.delta_m.count < 2 else row.delta_m.deviation, one)
            for row, one in zip(points, legend, strict=True)
        ]
        charts.append(scatter_chart("Δm %", label, marks, front([(mark.x, mark.y) for mark in marks]), count))
    return {"charts": charts, "legend": legend}


def _curves(comparison: Comparison, folder: Path) -> Curves:
    """By method, mean over seeds; without the single-task models, each of which has a run per task."""
    first = next(iter(comparison.runs.values()))[0]
    named = {
        TITLES[method]: [read_metrics(folder / Path(run.name).name / "metrics.csv") for run in runs]
        for method, runs in comparison.runs.items()
        if method != SINGLE
    }
    return several_curves(named, first.headline, first.higher_is_better)
