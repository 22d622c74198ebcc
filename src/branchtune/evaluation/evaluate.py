"""All tasks' metrics over a data set."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from branchtune.backbone.check import placement
from branchtune.batch import read_batch, read_images
from branchtune.joint import joint_sum
from branchtune.metrics.streaming import StreamingMetric
from branchtune.model import MultiTaskModel
from branchtune.modes import modes_kept
from branchtune.progress import Advance
from branchtune.tasks.task import Task


class TaskMetrics:
    """The streaming metrics and the mean loss of a set of tasks.

    Args:
        tasks: any tasks of different names.
        final: with the tasks' `final_metrics`, which are slow.
    """

    def __init__(self, tasks: Iterable[Task], final: bool = False) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.final = final
        self.reset()

    def reset(self) -> None:
        self.metrics = {
            name: {**task.metrics(), **(task.final_metrics() if self.final else {})}
            for name, task in self.tasks.items()
        }
        self.losses: dict[str, list[float]] = {name: [] for name in self.tasks}

    @torch.no_grad()
    def update(self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]) -> None:
        """Count one batch; the samples of a task without label are skipped.

        Losses are taken image by image: a mean over batches would depend on which images share one, by their unequal
        numbers of valid pixels and by the class balance that a loss may take from its batch.
        """
        found = read_batch(batch, self.tasks)
        for name, target in found.targets.items():
            output, target = outputs[name].detach().float().cpu(), target.cpu()
            for row in found.labelled[name].nonzero()[:, 0].tolist():
                one = slice(row, row + 1)
                self.losses[name].append(float(self.tasks[name].loss(output[one], target[one])))
            for metric in self.metrics[name].values():
                metric.update(output, target)

    def compute(self) -> dict[str, dict[str, float]]:
        """Per task its metrics by name, and `loss`: the mean of the labelled images' own.

        NaN where no process has found a label of the task.
        """
        result = {}
        for task, metrics in self.metrics.items():
            losses = self.losses[task]
            total, counted = joint_sum(torch.tensor([math.fsum(losses), len(losses)], dtype=torch.float64)).tolist()
            values: dict[str, float] = {}
            for key, metric in metrics.items():
                found = _joint(metric) if counted or isinstance(metric, StreamingMetric) else float("nan")
                several = found if isinstance(found, Mapping) else {key: found}
                values |= {name: float(value) for name, value in several.items()}
            result[task] = {**values, "loss": total / counted if counted else float("nan")}
        return result


def _joint(metric: Metric) -> Any:
    """What the metric finds with the states of all processes, of which every one must call this, updated or not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*was called before the ``update`` method")
        return metric.compute()


@torch.no_grad()
def evaluate(
    model: MultiTaskModel, batches: Iterable[Mapping[str, Any]], advance: Advance | None = None
) -> dict[str, dict[str, float]]:
    """All metrics of every task over `batches`, the slow ones as well, in eval mode; every module's mode is restored.

    Args:
        model: on any device and in any precision, which the images take; the metrics are computed on the CPU.
        batches: as `Collate` makes them; a sample without a task's label is skipped there.
        advance: called after every batch.

    Returns:
        Per task its metrics by name, and `loss`, the mean of the labelled images' own.
    """
    metrics = TaskMetrics(model.tasks.values(), final=True)
    like = placement(model.backbone.frozen)
    with modes_kept(model):
        model.eval()
        for batch in batches:
            metrics.update(model(read_images(batch).to(like)), batch)
            if advance:
                advance()
    return metrics.compute()


def headlines(results: Mapping[str, Mapping[str, float]], tasks: Mapping[str, Task]) -> dict[str, float]:
    """Each task's headline metric."""
    return {name: values[tasks[name].headline] for name, values in results.items()}
