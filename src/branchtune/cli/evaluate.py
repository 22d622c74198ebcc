"""`branchtune evaluate RUN`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.cli.arguments import add_format, add_low_memory
from branchtune.settings import parse

TEXT = """Compute the metrics of a finished run again, from its model and the data of its configuration. With
--low_memory, of the model with its backbone's weights in that precision, beside the numbers that the run ended with."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune evaluate", description=TEXT)
    parser.add_argument("run", type=str, help="run directory")
    add_low_memory(parser)
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    add_format(parser)
    options = parse(parser, argv)
    from branchtune.cli.output import reporter_of, show
    from branchtune.report.run_outcome import evaluation_outcome
    from branchtune.run.directory import load_settings
    from branchtune.run.finished import evaluate_run
    from branchtune.run.results import Results
    from branchtune.run.workbench import Workbench

    reporter, run = reporter_of(options), Path(options.run)
    # Before the long step: either may be gone.
    config = load_settings(run).config
    reference = Workbench(config, reporter).reference
    before = {} if options.low_memory is None else Results.load(run / "results.json").metrics
    metrics = evaluate_run(run, reporter, options.low_memory)
    show(evaluation_outcome(options.run, metrics, before, config.tasks, reference), options, reporter)
