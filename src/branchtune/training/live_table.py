"""The table that a terminal shows while a model trains."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich import box
from rich.table import Table

from branchtune.tables.numbers import arrow, number
from branchtune.tables.sparkline import sparkline
from branchtune.tasks.task import Task
from branchtune.training.module import MultiTaskModule

RECENT = 20  # batches that the shown training loss is the mean of
_SECONDS = 0.5


class LiveTable:
    """The numbers of every task so far; a pass over the losses at most twice a second, as it waits for the device.

    Args:
        module: that trains.
        rows: those of `metrics.csv`, to which every validation adds.
        ascii_only: no sparklines.
    """

    def __init__(self, module: MultiTaskModule, rows: Sequence[Mapping[str, Any]], ascii_only: bool) -> None:
        self.module, self.rows, self.ascii_only = module, rows, ascii_only
        self.losses: dict[str, float] = {}
        self._read = -math.inf

    def read_losses(self) -> None:
        """Take the mean loss of the last batches of every task, unless it was taken a moment ago."""
        now = time.monotonic()
        recent = {name: losses[-RECENT:] for name, losses in self.module.train_losses.items() if losses}
        if recent and now - self._read >= _SECONDS:
            self._read = now
            means = torch.stack([torch.stack(losses).mean() for losses in recent.values()])
            self.losses.update(zip(recent, means.tolist(), strict=True))

    def table(self) -> Table:
        """As it is now."""
        return training_table(self.module.model.tasks, self.losses, self.rows, self.ascii_only)


def training_table(
    tasks: Mapping[str, Task], losses: Mapping[str, float], rows: Sequence[Mapping[str, Any]], ascii_only: bool
) -> Table:
    """One row per task: losses, headline metric, its best value with the epoch, and how it moved (up is better).

    Args:
        tasks: by name.
        losses: of training, by task; a task that does not train has none.
        rows: of `metrics.csv`: `epoch` from 0, `task`, `val_loss` and the metrics by name.
        ascii_only: write the trend with + and -.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", overflow="fold")
    for heading in ("loss", "val loss"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("metric", overflow="fold")
    for heading in ("now", "best (epoch)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("trend" if ascii_only else f"trend {arrow(True)}", no_wrap=True)
    for name, task in tasks.items():
        mine = [row for row in rows if row["task"] == name]
        values = [float(row[task.headline]) for row in mine]
        latest = values[-1] if values else None
        table.add_row(
            name,
            number(losses.get(name)),
            number(mine[-1]["val_loss"] if mine else None),
            f"{task.headline} {arrow(task.higher_is_better)}",
            number(latest),
            _best(values, [int(row["epoch"]) for row in mine], task.higher_is_better),
            sparkline(values, task.higher_is_better, ascii_only=ascii_only),
        )
    return table


def _best(values: Sequence[float], epochs: Sequence[int], higher_is_better: bool) -> str:
    found = [(value if higher_is_better else -value, -epoch) for value, epoch in zip(values, epochs, strict=True)]
    finite = [pair for pair in found if math.isfinite(pair[0])]
    if not finite:
        return "-"
    best, epoch = max(finite)
    return f"{number(best if higher_is_better else -best)} ({1 - epoch})"
