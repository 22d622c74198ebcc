"""Where a command's messages and its final table go: with `--format` the table has standard output for itself."""

from __future__ import annotations

import sys

from jsonargparse import Namespace

from branchtune.progress import Reporter
from branchtune.tables.outcome import Outcome


def reporter_of(options: Namespace) -> Reporter:
    """For messages and progress, by the command's `quiet` and `format`."""
    return Reporter(options.quiet, stderr=options.format is not None)


def show(outcome: Outcome, options: Namespace, reporter: Reporter) -> None:
    """The outcome in the format that was asked for, else as tables for a terminal."""
    if options.format is not None:
        sys.stdout.write(outcome.text(options.format))
        return
    for cells in outcome.tables:
        reporter.table(cells)
    for note in outcome.notes:
        reporter.say(note)
