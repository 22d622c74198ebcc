"""What the report of a comparison shows of the runs whose directories are still beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from branchtune.comparison.methods import TITLES
from branchtune.comparison.result import Comparison
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.report.page.conflict import several_conflicts
from branchtune.report.page.curves import Curves, Metrics, several_curves
from branchtune.report.page.gallery import gallery_or_reason
from branchtune.report.page.html import Section
from branchtune.report.page.run_data import RunData, read_metrics, read_run
from branchtune.report.page.sections import affinity_section, gallery_section, tree_section
from branchtune.run.results import Results

BRANCHED = "branched"
OTHER = "it is not the run of this comparison"


def kept_runs(comparison: Comparison, folder: Path, reporter: Reporter) -> dict[str, RunData]:
    """By method the run of the first seed, where it is in the comparison's folder; why one is left out is said."""
    found = {}
    for method, results in comparison.runs.items():
        path = folder / Path(results[0].name).name
        if not path.exists():
            continue
        try:
            run = read_run(path)
        except UserError as error:
            reporter.say(f"no trees, conflict and gallery of {path.name}: {error}")
            continue
        if run.results.metrics == results[0].metrics:
            found[method] = run
        else:
            reporter.say(f"no trees, conflict and gallery of {path.name}: {OTHER}")
    return found


def tree_sections(kept: Mapping[str, RunData], seed: str) -> list[Section]:
    """The trees of the methods that train adapters, and the affinity that the planned one comes from."""
    trained = {method: run for method, run in kept.items() if run.results.parameters["adapters"]}
    sections = []
    if trained:
        sections.append(tree_section(f"Trees, {seed}", list(trained.values()), [TITLES[m] for m in trained]))
    if BRANCHED in kept and kept[BRANCHED].affinity:
        sections.append(affinity_section(f"Affinity, {seed}", kept[BRANCHED]))
    return sections


def conflict_and_gallery(kept: Mapping[str, RunData], seed: str, reporter: Reporter) -> list[Section]:
    """Gradient conflict of every method; the gallery of the planned tree, or of the first method without one."""
    if not kept:
        return [gallery_section("Gallery", "the runs are not in the folder of the comparison.")]
    shown = BRANCHED if BRANCHED in kept else next(iter(kept))
    conflict = several_conflicts(list(kept.values()), [TITLES[method] for method in kept])
    return [
        Section("conflict", f"Gradient conflict, {seed}", "conflicts", conflict),
        gallery_section(f"Gallery: {TITLES[shown]}, {seed}", gallery_or_reason(kept[shown], reporter)),
    ]


def seed_curves(comparison: Comparison, folder: Path, reporter: Reporter) -> Curves:
    """By method, mean over seeds; without the single-task models, each of which has a run per task.

    A run that is not whole, or not of this comparison, is left out, which is said.
    """
    first = next(iter(comparison.runs.values()))[0]
    named = {
        TITLES[method]: [_metrics(results, folder, reporter) for results in runs]
        for method, runs in comparison.runs.items()
    }
    return several_curves(named, first.headline, first.higher_is_better)


def _metrics(results: Results, folder: Path, reporter: Reporter) -> Metrics:
    path = folder / Path(results.name).name
    if not path.exists():
        return {}
    reason = OTHER
    try:
        if Results.load(path / "results.json").metrics == results.metrics:
            return read_metrics(path / "metrics.csv")
    except UserError as error:
        reason = str(error)
    reporter.say(f"no learning curves of {path.name}: {reason}")
    return {}
