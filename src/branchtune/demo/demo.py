"""Train and tabulate the demo's columns."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from branchtune.demo.committed import committed_results, difference_to_reference
from branchtune.demo.timing import Stopwatch
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.report.page.write import after_run
from branchtune.report.table import Column, comparison
from branchtune.run.fit import fit
from branchtune.run.reference import train_reference
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings

TITLES = {
    "decoders": "decoders\nonly",
    "shared": "one shared\nset",
    "separate": "one set\nper task",
    "branched": "branched\ntree",
}
TRAINED = ("branched", "shared")


def demo(settings: Settings, train_all: bool, reporter: Reporter) -> dict[str, Column]:
    """Run the example and print its table.

    Args:
        settings: of the example; its name is the folder of the columns' runs.
        train_all: also train the columns and the reference that otherwise come from committed results.
        reporter: for messages, progress and the table.
    """
    started = time.monotonic()
    name = settings.config.name
    committed = {} if train_all else committed_results(settings)
    # Not part of the columns' runs, so that --train-all continues what was trained without it.
    reference, settings = _reference(settings, train_all, reporter), settings.but(reference=None)
    columns: dict[str, Column] = {}
    first: Path | None = None
    for method in ("branched", "shared", "separate", "decoders"):
        if method in TRAINED or train_all:
            reporter.say(f"\n== {TITLES[method].replace(chr(10), ' ')} ==")
            results = fit(settings.but(method=method, name=f"{name}/{method}"), reporter, reuse=first)
            first = first or Path(settings.config.output) / name / method
        elif method in committed:
            results = committed[method]
        else:
            continue
        results = results if reference is None else results.compared_with(reference)
        columns[method] = Column(TITLES[method], results, committed=method not in TRAINED and not train_all)
    stopwatch = Stopwatch(settings, reporter)
    ordered = {
        method: dataclasses.replace(columns[method], results=stopwatch.results(columns[method].results))
        for method in TITLES
        if method in columns
    }
    reference = None if reference is None else stopwatch.reference(reference)
    reporter.table(comparison(list(ordered.values()), reference))
    for line in footer(settings, reference, [c.committed for c in ordered.values()]):
        reporter.say(line)
    for method in (method for method, column in ordered.items() if not column.committed):
        after_run(Path(settings.config.output) / name / method, reporter)
    reporter.say(f"runs in {Path(settings.config.output) / name}; {time.monotonic() - started:.0f} s")
    return ordered


def footer(settings: Settings, reference: Reference | None, committed: Sequence[bool]) -> list[str]:
    """What the numbers of the table are relative to, and where they come from."""
    size = "x".join(map(str, settings.config.data.image_size))
    lines = [f"MACs and ms per image at {size}, all tasks (ms: measured here, batch 8); seed {settings.config.seed}"]
    if reference is not None:
        lines.append(f"delta_m: mean gain over the reference {reference.id!r} (full fine-tuning, same decoder)")
        difference = difference_to_reference(settings, reference)
        if difference is not None:
            lines.append(f"the reference was trained with another configuration: {difference}")
    if any(committed):
        lines.append("* committed results of this configuration; branchtune demo --train-all trains these columns here")
    elif len(committed) < len(TITLES):
        lines.append("no committed results of this configuration: --train-all trains the other columns, too")
    return lines


def _reference(settings: Settings, train_all: bool, reporter: Reporter) -> Reference | None:
    if not train_all:
        return Workbench(settings.config, reporter).reference
    name = f"{settings.config.name} trained here"
    reference = train_reference(settings, [settings.config.seed], name, reporter)
    reference.save(Path(settings.config.output) / settings.config.name / "reference.json")
    return reference
