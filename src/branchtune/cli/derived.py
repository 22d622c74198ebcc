"""What the commands that make a new run from a finished one have in common: `RUN`, overrides, `--name NEW`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from branchtune.cli.arguments import FORMAT, configured
from branchtune.config import StartFromConfig
from branchtune.errors import UserError
from branchtune.settings import Settings

if TYPE_CHECKING:
    from branchtune.progress import Reporter
    from branchtune.run.results import Results


def derived(
    command: str, text: str, argv: Sequence[str], takes: str = "RUN", **options: Any
) -> tuple[Settings, Namespace]:
    """Parse `branchtune COMMAND RUN --name NEW [--key value ...]`.

    The new run lies beside RUN unless `--output` is given.

    Args:
        command: its name.
        text: what it does, for the help.
        argv: the arguments after the command, of which the first is RUN.
        takes: what the help shows as the first arguments.
        options: see `configured`; those that are keys of `start_from` are put there.

    Returns:
        The settings of the new run, and a namespace with `quiet`, `format` and the further options.

    Raises:
        UserError: no run, or one that is not finished; no name for the new one; several devices.
    """
    wants, options = f"{takes} --name NEW", {**options, "format": FORMAT}
    if not argv or argv[0].startswith("-"):
        if not {"-h", "--help"} & set(argv):
            raise UserError(f"the finished run comes first: branchtune {command} {wants}")
        return configured(command, text, ["--help"], takes=wants, **options)
    from branchtune.run.directory import load_settings
    from branchtune.training.device import device_numbers

    run = Path(argv[0])
    finished = load_settings(run)
    beside = _output(run, finished.config.name)
    file = str(run / "config.yaml")
    settings, chosen = configured(command, text, [file, f"--output={beside}", *argv[1:]], takes=wants, **options)
    if settings.config.name == finished.config.name and Path(settings.config.output) == beside:
        raise UserError(f"--name is not set: the new run needs a name of its own, {finished.config.name!r} is RUN's")
    devices, before = settings.config.trainer.get("devices"), finished.config.trainer.get("devices")
    if devices != before and len(device_numbers(settings.config.trainer)) > 1:
        raise UserError(f"trainer.devices={devices!r}: {command} uses one device, leave the key out")
    # All of them, also those that are no option here: in the run's own file they have their defaults.
    known = {field.name: field.default for field in fields(StartFromConfig) if field.name != "run"}
    keys = {key: chosen[key] if key in options else default for key, default in known.items()}
    return settings.on_one_device().but(start_from=Namespace(run=str(run), **keys)), chosen


def report(settings: Settings, results: Results, options: Namespace, reporter: Reporter) -> None:
    """The table of the new run beside the one it started from."""
    from branchtune.cli.output import show
    from branchtune.report.page.write import after_run
    from branchtune.report.run_outcome import runs_outcome
    from branchtune.report.table import Column
    from branchtune.run.results import Results
    from branchtune.run.workbench import Workbench

    assert settings.config.start_from is not None
    before = Results.load(Path(settings.config.start_from.run) / "results.json")
    columns = [Column("before", before), Column("after", results)]
    if set(results.metrics) - set(before.metrics):
        columns.reverse()  # the first one's tasks are the rows
    reference = Workbench(settings.config, reporter).reference
    show(runs_outcome(columns, reference), options, reporter)
    path = Path(settings.config.output) / settings.config.name
    reporter.say(f"wrote {path}")
    after_run(path, reporter)


def _output(run: Path, name: str) -> Path:
    """The folder that `run` is `name` of; where it was renamed, the folder it lies in."""
    parts = Path(name).parts
    path = run if len(run.parts) > len(parts) and ".." not in run.parts else run.resolve()
    if path.parts[-len(parts) :] == parts:
        return path.parents[len(parts) - 1]
    return path.parent
