"""`branchtune evaluate RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.settings import parse

TEXT = "Compute the metrics of a finished run again, from its model and the data of its configuration."


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune evaluate", description=TEXT)
    parser.add_argument("run", type=str, help="run directory")
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    from branchtune.progress import Reporter
    from branchtune.run.finished import evaluate_run

    reporter = Reporter(options.quiet)
    for task, values in evaluate_run(Path(options.run), reporter).items():
        reporter.say(f"{task}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
