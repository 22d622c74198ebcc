"""`branchtune fit CONFIG`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from branchtune.cli.arguments import FORMAT, configured

TEXT = """A whole run: fit decoders, measure affinity, plan the tree, train, evaluate, write the run directory.
Interrupted at any moment, the same command continues. With trainer.devices=N it trains in N processes. It ends with
report.html in the run directory."""


def run(argv: Sequence[str]) -> None:
    settings, options = configured("fit", TEXT, argv, format=FORMAT)
    from branchtune.cli.output import reporter_of, show
    from branchtune.progress import Reporter
    from branchtune.report.page.write import after_run
    from branchtune.report.run_outcome import runs_outcome
    from branchtune.report.table import Column
    from branchtune.run.directory import RunDirectory
    from branchtune.run.fit import assist, fit
    from branchtune.run.launch import launch, wanted_processes
    from branchtune.run.workbench import Workbench
    from branchtune.training.processes import rank_and_count

    processes = wanted_processes(settings)
    if processes > 1:
        status = launch(settings, argv, processes)
        if status:
            sys.exit(status)
        return
    if rank_and_count()[0] > 0:
        assist(settings, Reporter.silent())
        return
    reporter = reporter_of(options)
    results = fit(settings, reporter)
    reference = Workbench(settings.config, reporter).reference
    show(runs_outcome([Column(settings.config.method, results)], reference), options, reporter)
    if not settings.config.trainer.get("fast_dev_run"):
        path = RunDirectory(settings).path
        reporter.say(f"wrote {path}")
        after_run(path, reporter)
