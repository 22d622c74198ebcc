"""`branchtune fit CONFIG`."""

from __future__ import annotations

from collections.abc import Sequence

from branchtune.cli.arguments import configured

TEXT = """A whole run: fit decoders, measure affinity, plan the tree, train, evaluate, write the run directory.
Interrupted at any moment, the same command continues."""


def run(argv: Sequence[str]) -> None:
    settings, options = configured("fit", TEXT, argv)
    from branchtune.progress import Reporter
    from branchtune.report.table import Column, comparison
    from branchtune.run.fit import fit
    from branchtune.run.workbench import Workbench

    reporter = Reporter(options.quiet)
    results = fit(settings, reporter)
    reference = Workbench(settings.config, reporter).reference
    reporter.console.print(comparison([Column(settings.config.method, results)], reference))
    if reference is not None:
        reporter.say(f"delta_m divides by the reference {reference.id!r}")
