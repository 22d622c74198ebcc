"""Which sections the page of one run, and that of several, has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from branchtune.report.page.conflict import run_conflict, several_conflicts
from branchtune.report.page.curves import run_curves, several_curves
from branchtune.report.page.data_words import data_words, evaluated_each
from branchtune.report.page.gallery import Gallery
from branchtune.report.page.html import Section, render
from branchtune.report.page.run_data import RunData
from branchtune.report.page.runs_table import runs_table
from branchtune.report.page.sections import affinity_section, gallery_section, tree_section
from branchtune.report.page.tables import common_reference, cost_table, headline_table, metrics_table, run_titles
from branchtune.tables.cells import Cells


def run_page(run: RunData, gallery: Gallery | str) -> str:
    """The page of one run.

    Args:
        run: the run.
        gallery: its gallery, or why there is none.
    """
    sections = [
        Section("results", "Results", "results", _results([run])),
        tree_section("Tree", [run], ["this run"]),
        affinity_section("Affinity", run),
        Section("cost", "Cost", "cost", cost_table([run])),
        Section("curves", "Learning curves", "curves", run_curves(run)),
        Section("conflict", "Gradient conflict", "conflict", run_conflict(run)),
        gallery_section("Gallery", gallery),
        Section("origin", "Where this comes from", "origin", [_origin(run)]),
    ]
    return render(run.results.name, _facts(run), sections)


def runs_page(runs: Sequence[RunData]) -> str:
    """Several runs beside each other, in one column of every table and one line of every chart.

    Raises:
        UserError: they are judged by different metrics of one task.
    """
    titles, results = run_titles(runs), [run.results for run in runs]
    headline = {task: metric for r in reversed(results) for task, metric in r.headline.items()}
    higher = {task: value for r in reversed(results) for task, value in r.higher_is_better.items()}
    curves = several_curves({t: [run.metrics] for t, run in zip(titles, runs, strict=True)}, headline, higher)
    sections = [
        Section("runs", "Runs", "runs", runs_table(runs, titles)),
        Section("results", "Results", "results", _results(runs)),
        tree_section("Trees", runs, titles),
        Section("cost", "Cost", "cost", cost_table(runs)),
        Section("curves", "Learning curves", "curves", curves),
        Section("conflict", "Gradient conflict", "conflicts", several_conflicts(runs, titles)),
        Section("origin", "Where this comes from", "origin", [_origin(run) for run in runs]),
    ]
    return render(f"{len(runs)} runs", [("runs", ", ".join(titles))], sections)


def _facts(run: RunData) -> list[tuple[str, str]]:
    return [
        ("method", run.results.method),
        ("tasks", str(len(run.tasks))),
        ("backbone", run.model.spec.name),
        ("image size", run.image_size),
        ("seed", str(run.results.seed)),
        *([("Δm", f"{run.results.delta_m:+.2f} %")] if run.results.delta_m is not None else []),
    ]


def _results(runs: Sequence[RunData]) -> dict[str, Any]:
    ids = dict.fromkeys(run.results.reference for run in runs if run.results.reference)
    reasons = list(dict.fromkeys(run.no_reference for run in runs if run.no_reference))
    return {
        "headline": headline_table(runs),
        "metrics": metrics_table(runs),
        "evaluated": evaluated_each([run.images for run in runs], run_titles(runs)),
        "references": list(ids),
        "no_reference": [] if common_reference(runs) else reasons,
        "mean": any(run.results.delta_m is not None for run in runs),
        "several": len(runs) > 1,
    }


def _origin(run: RunData) -> Cells:
    versions = ", ".join(f"{name} {version}" for name, version in run.results.versions.items())
    rows = [
        ["command", str(run.manifest.get("command", "–"))],
        ["seed", str(run.results.seed)],
        ["data", data_words(run.config.data.kind, run.images)],
        ["hardware", run.results.hardware],
        ["versions", versions],
    ]
    return Cells(run.results.name, ["", ""], rows)
