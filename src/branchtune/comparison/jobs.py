"""The runs of a comparison in several processes at a time; their results are read from the run directories."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path

from branchtune.progress import Reporter
from branchtune.settings import Settings


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        settings: its whole configuration.
        reuse: a run whose fitted decoders and affinity serve this one, which therefore waits for it; None for none.
    """

    settings: Settings
    reuse: Path | None = None

    @property
    def path(self) -> Path:
        return Path(self.settings.config.output) / self.settings.config.name

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").exists()


def train_all(jobs: Iterable[Job], workers: int, reporter: Reporter) -> None:
    """Train what is not finished; what a run prints goes to `log.txt` in its directory.

    Args:
        jobs: in the order in which they begin, but for those that wait for another one.
        workers: processes; they share the cores evenly.

    Raises:
        UserError: of the first run that fails; those that have begun are ended, and can be continued.
    """
    todo = {job.path: job for job in jobs if not job.finished}
    total, done = len(todo), 0
    waiting = deque(todo.values())
    running: dict[Future[float], Job] = {}
    threads = max(1, (os.cpu_count() or 1) // workers)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                for _ in range(len(waiting)):
                    job = waiting.popleft()
                    if len(running) == workers or job.reuse in todo:
                        waiting.append(job)
                    else:
                        running[pool.submit(_train, job.settings.text(), job.reuse, threads)] = job
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job, done = running.pop(future), done + 1
                    seconds = future.result()
                    del todo[job.path]
                    reporter.say(f"{done} of {total}: {job.path.name} in {seconds:.0f} s")
        except BaseException:
            for process in active_children():
                process.terminate()
            raise


def _train(text: str, reuse: Path | None, threads: int) -> float:
    """In a process of its own: train one run, and give the seconds that it took."""
    import time

    import torch
    from rich.console import Console

    from branchtune.run.fit import fit

    torch.set_num_threads(threads)
    settings, start = Settings.parse(text), time.monotonic()
    path = Path(settings.config.output) / settings.config.name
    path.mkdir(parents=True, exist_ok=True)
    with (path / "log.txt").open("a", encoding="utf-8") as file:
        fit(settings, Reporter(console=Console(file=file, width=120)), reuse)
    return time.monotonic() - start
