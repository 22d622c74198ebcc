"""`fit`, what the other processes of a run do meanwhile, and `measure`, which stops before the tree."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

from branchtune.affinity import Affinity
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.phases import Phases
from branchtune.run.results import Results
from branchtune.settings import Settings


def fit(settings: Settings, reporter: Reporter, reuse: Path | None = None) -> Results:
    """Run or continue a run to its end.

    Args:
        settings: the configuration.
        reporter: for messages and progress.
        reuse: another run of the same data, backbone and seed, and of these tasks or more, whose fitted decoders (and
            affinity, for a planned tree of the same tasks) may be reused.

    Raises:
        UserError: anything that the configuration or the data get wrong. A mistake in the configuration shows before
            anything is written; after a later one the run directory stays usable.
    """
    if settings.config.trainer.get("fast_dev_run"):
        return _try_out(settings, reporter)
    run = RunDirectory(settings)
    if run.has("results.json"):
        reporter.say(f"{run.path} is finished: these are its results (choose another --name for a new run)")
        return Results.load(run.file("results.json"))
    try:
        return Phases(settings, run, reporter).run_all(reuse)
    finally:
        gc.collect()  # model, trainer and data refer to each other: gigabytes that the next run would add to


def assist(settings: Settings, reporter: Reporter) -> None:
    """What a process that `torchrun` has started does in `fit`, unless it is the first: it trains with it.

    Raises:
        UserError: as in `fit`.
    """
    run = RunDirectory(settings)
    if not run.has("results.json") and not settings.config.trainer.get("fast_dev_run"):
        Phases(settings, run, reporter).assist()


def measure(settings: Settings, reporter: Reporter) -> Affinity:
    """The first two phases of `fit`: fitted decoders and affinity, kept in the run directory."""
    if settings.config.start_from is not None:
        raise UserError("a run that starts from another has its tree from there, which no affinity changes: use fit")
    phases = Phases(settings, RunDirectory(settings), reporter)
    with phases.started(plans=False):
        return phases.affinity()


def _try_out(settings: Settings, reporter: Reporter) -> Results:
    """`--trainer.fast_dev_run`: every phase with a step or two, in a directory that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        quick = settings.on_one_device().but(output=folder)
        quick.config.decoder_fit.steps = min(1, quick.config.decoder_fit.steps)
        quick.config.affinity.samples = 2 * quick.config.affinity.batch_size
        return Phases(quick, RunDirectory(quick), reporter).run_all(None)
