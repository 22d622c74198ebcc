"""Per-task losses of a batch with partial labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from branchtune.batch import read_batch
from branchtune.tasks.task import Task


def task_losses(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], tasks: Mapping[str, Task]
) -> dict[str, Tensor]:
    """The unweighted loss of every task that has a label in the batch.

    A task without any label contributes no loss and no gradient: it is absent from the result.

    Args:
        outputs: of the model, per task.
        batch: see `read_batch`.
        tasks: by name.

    Raises:
        UserError: a target that does not fit the images or its task.
    """
    return {name: tasks[name].loss(outputs[name], target) for name, target in read_batch(batch, tasks).targets.items()}
