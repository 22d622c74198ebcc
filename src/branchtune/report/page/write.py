"""Write report.html: of a run, of several, and after a run without ever failing it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from branchtune.atomic import write_text
from branchtune.progress import Reporter
from branchtune.report.page.gallery import gallery_or_reason
from branchtune.report.page.pages import run_page, runs_page
from branchtune.report.page.run_data import RunData, read_run

NAME = "report.html"


def write_run_report(path: Path, reporter: Reporter, out: Path | None = None) -> Path:
    """The report of one run, with a gallery where its data are still there.

    Args:
        path: the run's directory.
        reporter: says why there is no gallery, or no reference beside the gains.
        out: the file; default report.html in the run's directory.

    Raises:
        UserError: the folder is no finished run with a model, a file is damaged, or the page cannot be written.
    """
    run, target = _read(path, reporter), out or path / NAME
    write_text(target, run_page(run, gallery_or_reason(run, reporter)))
    return target


def write_runs_report(paths: Sequence[Path], reporter: Reporter, out: Path) -> Path:
    """Several runs beside each other, without galleries.

    Raises:
        UserError: as for one.
    """
    write_text(out, runs_page([_read(path, reporter) for path in paths]))
    return out


def _read(path: Path, reporter: Reporter) -> RunData:
    run = read_run(path)
    if run.no_reference is not None:
        reporter.say(f"no reference beside the gains of {run.results.name}: {run.no_reference}")
    return run


def after(write: Callable[[], Path], folder: Path, reporter: Reporter) -> None:
    """Write the report of a run that has just ended; what goes wrong is a warning, as the run itself is complete.

    Args:
        write: makes the report and returns its file.
        folder: the run's, for the command that makes the report again.
        reporter: says where it is, or why there is none.
    """
    try:
        reporter.say(f"report: {write()}")
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        reporter.say(f"warning: no report ({reason}); the run is complete, `branchtune report {folder}` makes it again")


def after_run(folder: Path, reporter: Reporter) -> None:
    """Write a run's report, unless one that is newer than its results is there; a trial run has no results."""
    target, results = folder / NAME, folder / "results.json"

    def write() -> Path:
        if target.exists() and target.stat().st_mtime >= results.stat().st_mtime:
            return target
        return write_run_report(folder, reporter)

    if results.exists():
        after(write, folder, reporter)
