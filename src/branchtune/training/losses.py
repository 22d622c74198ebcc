"""Per-task losses of a batch with partial labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from branchtune.batch import read_batch
from branchtune.joint import joint_sum, processes
from branchtune.tasks.task import Task


def task_losses(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The unweighted loss of every task that has a label in the batch.

    A task without any label contributes no loss and no gradient: it is absent from the result. In a step of several
    processes (`joint_step`) that is one without a label in any of them.

    Args:
        outputs: of the model, per task.
        batch: see `read_batch`.
        tasks: by name.

    Raises:
        UserError: a target that does not fit the images or its task.
    """
    targets = read_batch(batch, tasks).targets
    losses = {}
    for name in _with_label_anywhere(tasks, targets, outputs):
        if name in targets:
            losses[name] = tasks[name].loss(outputs[name], targets[name])
        else:
            losses[name] = _no_loss(tasks[name], outputs[name], batch)
    return losses


def _with_label_anywhere(
    tasks: Mapping[str, Task], targets: Mapping[str, Tensor], outputs: Mapping[str, Tensor]
) -> list[str]:
    """The tasks with a label in the joint batch: all processes of a step compute the same losses, in the same order."""
    if processes() == 1:
        return list(targets)
    here = torch.tensor(
        [name in targets for name in tasks], dtype=torch.int32, device=outputs[next(iter(tasks))].device
    )
    return [name for name, count in zip(tasks, joint_sum(here).tolist(), strict=True) if count]


def _no_loss(task: Task, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Zero with a gradient of zeros, for a process whose share of the joint batch has no label of the task.

    Its loss is computed all the same, since the other processes wait for this one's counts, and then dropped: without
    an element it may be NaN.
    """
    one = task.missing_target(*batch["image"].shape[2:])
    target = one.expand(len(output), *one.shape)
    with torch.no_grad():
        task.loss(output, target.to(output.device, copy=True))
    return output.sum() * 0.0
