"""The runs of a comparison in several processes at a time; their results are read from the run directories."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path

import torch
from rich.console import Console

from branchtune.comparison.trials import divergence, record_divergence
from branchtune.errors import DivergedError, UserError
from branchtune.progress import Reporter
from branchtune.run.directory import RunDirectory
from branchtune.run.fit import fit
from branchtune.run.workbench import Workbench
from branchtune.settings import Settings


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        settings: its whole configuration.
        reuse: a run whose fitted decoders and affinity serve this one, which therefore waits for it; None for none.
        trial: of a learning rate, which may diverge without ending the others.
    """

    settings: Settings
    reuse: Path | None = None
    trial: bool = False

    @property
    def name(self) -> str:
        return self.settings.config.name

    @property
    def path(self) -> Path:
        return Path(self.settings.config.output) / self.name


def train_all(jobs: Sequence[Job], workers: int, reporter: Reporter) -> None:
    """Train what is not finished, and no trial again that diverged.

    What a run prints goes to `log.txt` in its directory.

    Args:
        jobs: in the order in which they begin, but for those that wait for another one.
        workers: processes; they share the cores evenly, and a GPU unevenly.

    Raises:
        UserError: a mistake in the configuration, before anything is written; the first run that fails, or whose
            process was ended. The others are ended too, and can be continued.
    """
    unfinished = [job for job in jobs if not RunDirectory(job.settings).has("results.json")]
    todo = {job.path: job for job in unfinished if not (job.trial and divergence(job.path))}
    if not todo:
        return
    Workbench(next(iter(todo.values())).settings.config, reporter).check(plans=True)
    total, waiting = len(todo), deque(todo.values())
    running: dict[Future[float], Job] = {}
    others = set(active_children())
    context = get_context("spawn")  # forked processes could inherit locks that torch's threads hold
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_die_with_parent) as pool:
        try:
            while waiting or running:
                for _ in range(len(waiting)):
                    job = waiting.popleft()
                    if len(running) == workers or job.reuse in todo:
                        waiting.append(job)
                    else:
                        running[pool.submit(_train, job.settings.text(), job.reuse, workers)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    try:
                        outcome = f"in {_seconds(future, job):.0f} s"
                    except DivergedError as error:
                        if not job.trial:
                            raise
                        record_divergence(job.path, error)
                        outcome = f"diverged ({error})"
                    del todo[job.path]
                    reporter.say(f"{total - len(todo)} of {total}: {job.name} {outcome}")
        except BaseException:
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _seconds(future: Future[float], job: Job) -> float:
    try:
        return future.result()
    except UserError as error:
        raise type(error)(f"{job.name}: {error}") from error
    except BrokenProcessPool as error:
        raise UserError(
            f"the process of {job.name} or of a run beside it was ended from outside, perhaps for want of memory: the "
            "same command goes on, with fewer --workers if need be"
        ) from error


def _die_with_parent() -> None:
    """No run goes on without the process that collects it: it would hold the lock of its directory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent ends these

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _train(text: str, reuse: Path | None, workers: int) -> float:
    """In a process of its own: train one run, and give the seconds that it took."""
    torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1) // workers))
    settings, start = Settings.parse(text), time.monotonic()
    path = Path(settings.config.output) / settings.config.name
    path.mkdir(parents=True, exist_ok=True)
    with (path / "log.txt").open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        fit(settings, Reporter(console=Console(file=file, width=120, soft_wrap=True, highlight=False)), reuse)
    return time.monotonic() - start
