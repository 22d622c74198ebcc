"""Per-task losses of a batch with partial labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.tasks.task import Task


def task_losses(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The unweighted loss of every task that has a label in the batch.

    A task without any label contributes no loss and no gradient: it is absent from the result.

    Args:
        outputs: of the model, per task.
        batch: as `Collate` makes it.
        tasks: by name.
    """
    return {
        name: task.loss(outputs[name], batch[name])
        for name, task in tasks.items()
        if bool(task.labelled(batch[name]).any())
    }


def check_finite(losses: Mapping[str, Tensor], batch: Mapping[str, Any], step: int) -> None:
    """Stop at a loss that is NaN or infinite.

    Raises:
        UserError: names the task, the step and the samples.
    """
    if not losses or bool(torch.isfinite(torch.stack([loss.detach().float() for loss in losses.values()])).all()):
        return
    name = next(name for name, loss in losses.items() if not bool(torch.isfinite(loss)))
    raise UserError(
        f"the loss of task {name!r} became {losses[name].item()} at step {step} (samples {', '.join(batch['id'][:8])}"
        f"{', ...' if len(batch['id']) > 8 else ''}): lower the learning rate or its weight, or check these labels; "
        "the last checkpoint is kept"
    )
