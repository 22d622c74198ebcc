"""Train and tabulate the demo's columns."""

from __future__ import annotations

import time
from pathlib import Path

from branchtune.demo.committed import committed_results
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.report.table import Column, comparison
from branchtune.run.fit import fit
from branchtune.run.reference import train_reference
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings

TITLES = {
    "decoders": "decoders\nonly",
    "shared": "one shared\nadapter set",
    "separate": "one set\nper task",
    "branched": "branched\n(planned)",
}
TRAINED = ("branched", "shared")


def demo(settings: Settings, train_all: bool, reporter: Reporter) -> dict[str, Column]:
    """Run the example and print its table.

    Args:
        settings: of the example; its name is the folder of the columns' runs.
        train_all: also train the columns and the reference that otherwise come from committed results.
    """
    started = time.monotonic()
    name = settings.config.name
    committed = {} if train_all else committed_results(settings)
    reference = _reference(settings, train_all, reporter)
    if train_all:
        path = Path(settings.config.output) / name / "reference.json"
        reference.save(path)
        settings = settings.but(reference=str(path))
    columns: dict[str, Column] = {}
    first: Path | None = None
    for method in ("branched", "shared", "separate", "decoders"):
        if method in committed and method not in TRAINED:
            columns[method] = Column(TITLES[method], committed[method], committed=True)
        elif method in TRAINED or train_all:
            reporter.say(f"\n== {TITLES[method].replace(chr(10), ' ')} ==")
            run = settings.but(method=method, name=f"{name}/{method}")
            columns[method] = Column(TITLES[method], fit(run, reporter, decoders_from=first))
            first = first or Path(settings.config.output) / name / method
    ordered = {method: columns[method] for method in TITLES if method in columns}
    reporter.console.print(comparison(list(ordered.values()), reference))
    _footer(settings, reference, any(c.committed for c in ordered.values()), time.monotonic() - started, reporter)
    return ordered


def _reference(settings: Settings, train_all: bool, reporter: Reporter) -> Reference:
    if train_all:
        return train_reference(settings, [settings.config.seed], "trained here", reporter)
    reference = Workbench(settings.config, reporter).reference
    assert reference is not None
    return reference


def _footer(settings: Settings, reference: Reference, any_committed: bool, seconds: float, reporter: Reporter) -> None:
    reporter.say(f"delta_m: mean gain over the reference {reference.id!r} (full fine-tuning, same decoder and recipe)")
    if any_committed:
        reporter.say(
            "* committed results of the same configuration; branchtune demo --train-all trains these columns here"
        )
    size = "x".join(map(str, settings.config.data.image_size))
    reporter.say(
        f"MACs and ms per image at {size}, all tasks; seed {settings.config.seed}; runs in "
        f"{Path(settings.config.output) / settings.config.name}; {seconds:.0f} s"
    )
