"""Single-task references: one full fine-tuning per task and seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.run.fit import fit
from branchtune.run.results import Results
from branchtune.settings import Settings


def single_task(settings: Settings, task: str, seed: int) -> Settings:
    """The configuration of one of the runs that a reference is the mean of."""
    name = f"{settings.config.name}/single-{task}-{seed}"
    return settings.but(tasks=[task], method="full", seed=seed, reference=None, name=name, start_from=None)


def train_reference(
    settings: Settings,
    seeds: Sequence[int],
    name: str,
    reporter: Reporter,
    reuse: Callable[[int], Path | None] = lambda seed: None,
) -> Reference:
    """Train, or finish, every task's single-task model and take the mean over seeds.

    Args:
        settings: the configuration that the multi-task models will use; its method, tasks and reference are replaced.
        seeds: at least one.
        name: id of the reference.
        reuse: for a seed, a run of all tasks whose fitted decoders may be reused.

    Returns:
        The reference; its settings hold the resolved configuration, every run's results and seed's value, and the
        summed cost.
    """
    if not seeds:
        raise UserError("reference needs at least one seed")
    runs: dict[str, list[Results]] = {}
    for task in settings.config.tasks:
        for seed in seeds:
            runs.setdefault(task, []).append(fit(single_task(settings, task, seed), reporter, reuse(seed)))
    first = {task: results[0] for task, results in runs.items()}
    values = {task: [r.heads[task] for r in results] for task, results in runs.items()}
    return Reference(
        name,
        {task: statistics.fmean(per_seed) for task, per_seed in values.items()},
        {
            "seeds": list(seeds),
            "values": values,
            "parameters": {
                key: sum(r.parameters[key] for r in first.values())
                for key in ("adapters", "extras", "decoders", "backbone")
            },
            "macs": {key: sum(r.macs[key] for r in first.values()) for key in ("backbone", "decoders")},
            "ms_per_image": sum(r.ms_per_image for r in first.values()),
            "train_memory": max((r.train_memory or 0 for r in first.values()), default=0) or None,
            "train_seconds": sum(r.train_seconds for results in runs.values() for r in results),
            "hardware": next(iter(first.values())).hardware,
            "versions": next(iter(first.values())).versions,
            "runs": {task: [r.to_json() for r in results] for task, results in runs.items()},
            "config": settings.but(method="full", reference=None, output="runs").text(),
        },
    )
