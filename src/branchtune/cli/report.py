"""`branchtune report RUN [RUN ...]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from branchtune.errors import UserError
from branchtune.settings import parse

TEXT = """Write the report of a finished run as one HTML file: results, tree, affinity, cost, learning curves, gradient
conflict, and a gallery of its best and worst cases. Of one run (or of a comparison's folder) it is report.html in that
folder; several runs are put beside each other, without galleries, in report.html in the current folder."""


def run(argv: Sequence[str]) -> None:
    parser = ArgumentParser(exit_on_error=False, prog="branchtune report", description=TEXT)
    parser.add_argument("runs", type=str, nargs="+", help="run directories, or one folder of a comparison")
    parser.add_argument("--out", type=str | None, default=None, help="the file to write")
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    options = parse(parser, argv)
    from branchtune.comparison.page import NAME as COMPARISON
    from branchtune.comparison.page import write_comparison_report
    from branchtune.progress import Reporter
    from branchtune.report.page.write import NAME, write_run_report, write_runs_report

    reporter, paths = Reporter(options.quiet), [Path(name) for name in options.runs]
    out = None if options.out is None else Path(options.out)
    compared = [path for path in paths if (path / COMPARISON).is_file() and not (path / "config.yaml").exists()]
    if compared and len(paths) > 1:
        raise UserError(f"{compared[0]} is a comparison, whose report has all its runs: give it alone")
    if compared:
        written = write_comparison_report(compared[0], reporter, out)
    elif len(paths) == 1:
        written = write_run_report(paths[0], reporter, out)
    else:
        written = write_runs_report(paths, reporter, out or Path(NAME))
    reporter.say(f"wrote {written}")
