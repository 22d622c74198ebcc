"""The report of a comparison: its numbers, and what the runs' directories beside it still hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchtune.atomic import write_text
from branchtune.comparison.facts import facts, images_of
from branchtune.comparison.kept import conflict_and_gallery, kept_runs, seed_curves, tree_sections
from branchtune.comparison.methods import TITLES
from branchtune.comparison.outcome import provenance
from branchtune.comparison.pareto import PANELS, front
from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import rows
from branchtune.comparison.tables import cost, differences, parameters, quality
from branchtune.progress import Reporter
from branchtune.report.page.chart import Chart, Series
from branchtune.report.page.data_words import evaluated_on
from branchtune.report.page.html import Section, render
from branchtune.report.page.scatter import Mark, scatter_chart
from branchtune.report.page.svg import colour
from branchtune.report.page.write import NAME as PAGE
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import count, signed

NAME = "comparison.json"


def write_comparison_report(folder: Path, reporter: Reporter, out: Path | None = None) -> Path:
    """The report of the comparison in `folder`.

    Args:
        folder: which holds comparison.json, and the runs where they are still there.
        reporter: says why there is no gallery.
        out: the file; default report.html in the folder.

    Raises:
        UserError: the comparison or a file of a run is damaged, or the page cannot be written.
    """
    comparison, target = Comparison.load(folder / NAME), out or folder / PAGE
    write_text(target, comparison_page(comparison, folder, reporter))
    return target


def comparison_page(comparison: Comparison, folder: Path, reporter: Reporter) -> str:
    """The page.

    Args:
        comparison: its numbers.
        folder: where its runs are. Drawn are trees, affinity, conflict and gallery of the first seed.
        reporter: says what of the runs is not shown, and why.
    """
    kept, seed, trees = kept_runs(comparison, folder, reporter), f"seed {comparison.seeds[0]}", groups(comparison)
    images = images_of(comparison, kept)
    origin = [["command", comparison.command], ["made on", provenance(comparison, every_package=True)]]
    tuned = any(tuning.scores for tuning in comparison.tuning.values())
    sections = [
        Section("results", "Results", "compared", _results(comparison, images)),
        Section("pareto", "Quality against cost", "pareto", _pareto(comparison)),
        *([Section("groups", "Groups of tasks", "groups", trees)] if trees.body else []),
        *tree_sections(kept, seed),
        Section("cost", "Cost", "tables", [parameters(comparison), cost(comparison, timed=True)]),
        *([Section("rates", "Tuned learning rates", "tables", [rates(comparison)])] if tuned else []),
        Section("curves", "Learning curves", "curves", seed_curves(comparison, folder, reporter)),
        *conflict_and_gallery(kept, seed, reporter),
        Section("origin", "Where this comes from", "origin", [Cells(comparison.name, ["", ""], origin)]),
    ]
    return render(comparison.name, facts(comparison, images), sections)


def _results(comparison: Comparison, images: Mapping[str, int]) -> dict[str, Any]:
    found = evaluated_on(images)
    return {
        "tables": [_mean_first(quality(comparison)), differences(comparison)],
        "notes": [*([f"Metrics are computed on {found}."] if found else []), *comparison.notes],
    }


def groups(comparison: Comparison) -> Cells:
    """The groups of every level at which they change, where adapters train; seeds with one tree share its rows."""
    found: dict[tuple[str, ...], list[str]] = {}
    for method, results in comparison.runs.items():
        for result in results:
            if result.parameters["adapters"]:
                texts = [" ".join("{" + " ".join(group) + "}" for group in level) for level in result.tree["levels"]]
                found.setdefault((TITLES[method], *texts), []).append(str(result.seed))
    body = []
    for (title, *levels), seeds in found.items():
        for level, text in enumerate(levels):
            if level == 0 or text != levels[level - 1]:
                body.append([title, text, str(level), ", ".join(seeds)])
    return Cells("", ["method", "groups", "from level", "seeds"], body)


def rates(comparison: Comparison) -> Cells:
    """The chosen multiple of every method's rate, and the validation score of each that was tried."""
    tried = list(dict.fromkeys(factor for tuning in comparison.tuning.values() for factor in tuning.scores))
    body = [
        [
            TITLES[method],
            f"{t.factor:g}",
            *(_score(t.scores[factor]) if factor in t.scores else "–" for factor in tried),
        ]
        for method, t in comparison.tuning.items()
    ]
    title = "Multiple of the configuration's rate; score of each on the validation split, in percent over the first"
    return Cells(title, ["method", "chosen", *(f"× {factor}" for factor in tried)], body)


def _score(score: float | None) -> str:
    return "diverged" if score is None else signed(score)


def _mean_first(cells: Cells) -> Cells:
    """With the last column, delta_m, before the tasks: it must be seen where a table is wider than the screen."""
    heading, *body = [[row[0], row[-1], *row[1:-1]] for row in (cells.heading, *cells.body)]
    return Cells(cells.title, heading, body)


def _pareto(comparison: Comparison) -> dict[str, list[Chart] | list[Series]]:
    points = rows(comparison)
    # The single-task models are no line in the other charts: without them every method has one colour.
    colours = ["var(--muted)", *(colour(index) for index in range(len(points) - 1))]
    legend = [Series(TITLES[row.method], [], one) for row, one in zip(points, colours, strict=True)]
    charts = []
    for label, of in PANELS:
        marks = [
            Mark(of(row), row.delta_m.mean, None if row.delta_m.count < 2 else row.delta_m.deviation, one)
            for row, one in zip(points, legend, strict=True)
        ]
        charts.append(scatter_chart("Δm %", label, marks, front([(mark.x, mark.y) for mark in marks]), count))
    return {"charts": charts, "legend": legend}
