"""`branchtune evaluate RUN`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.cli.arguments import add_low_memory
from branchtune.settings import parse

TEXT = """Compute the metrics of a finished run again, from its model and the data of its configuration. With
--low_memory, of the model with its backbone's weights in that precision, beside the numbers that the run ended with."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune evaluate", description=TEXT)
    parser.add_argument("run", type=str, help="run directory")
    add_low_memory(parser)
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    from branchtune.progress import Reporter
    from branchtune.run.finished import evaluate_run
    from branchtune.run.results import Results

    reporter = Reporter(options.quiet)
    metrics = evaluate_run(Path(options.run), reporter, options.low_memory)
    before = {} if options.low_memory is None else Results.load(Path(options.run) / "results.json").metrics
    for task, values in metrics.items():
        reporter.say(f"{task}: " + _numbers(values, before.get(task, {})))


def _numbers(values: Mapping[str, float], before: Mapping[str, float]) -> str:
    return ", ".join(
        f"{name} {value:.4f}" + (f" (was {before[name]:.4f})" if name in before else "")
        for name, value in values.items()
    )
