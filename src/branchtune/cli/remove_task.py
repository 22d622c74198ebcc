"""`branchtune remove-task RUN TASK`."""

from __future__ import annotations

from collections.abc import Sequence

from branchtune.cli.derived import derived, report
from branchtune.errors import UserError

TEXT = """Take a task out of the model of a finished run: its decoder goes, and the nodes that no other task uses.
Nothing is trained; the other tasks are evaluated again, and a new run directory is written. RUN stays as it is."""


def run(argv: Sequence[str]) -> None:
    arguments, task = list(argv), ""
    if arguments and not arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            arguments = ["--help"]
        elif len(arguments) < 2 or arguments[1].startswith("-"):
            raise UserError("remove-task needs a task after the run: branchtune remove-task RUN TASK --name NEW")
        else:
            task = arguments.pop(1)
    settings, options = derived("remove-task", TEXT, arguments, takes="RUN TASK")
    from branchtune.cli.output import reporter_of
    from branchtune.run.fit import fit
    from branchtune.run.start import keep_tasks

    reporter = reporter_of(options)
    settings = settings.but(tasks=keep_tasks(settings, task))
    report(settings, fit(settings, reporter), options, reporter)
