"""One gradient per task, and what training does with gradients: clip and accumulate.

Nothing here writes into a gradient: autograd may hand out one tensor for two parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from branchtune.joint import joint_means

#: per task one gradient for each parameter, None where the parameter is off the task's path
TaskGradients = dict[str, list[Tensor | None]]


def task_gradients(losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> TaskGradients:
    """The gradient of every task's loss, by one backward pass per task; the graph is freed by the last.

    Args:
        losses: scalar loss per task; a task without a label is absent. One that depends on nothing that trains is
            left out of the result.
        parameters: with respect to which.
    """
    losses = {task: loss for task, loss in losses.items() if loss.requires_grad}
    gradients: TaskGradients = {}
    for remaining, (task, loss) in zip(range(len(losses) - 1, -1, -1), losses.items(), strict=True):
        found = torch.autograd.grad(loss, list(parameters), retain_graph=remaining > 0, allow_unused=True)
        gradients[task] = list(found)
    return gradients


def clip_task_gradients(gradients: TaskGradients, max_norm: float) -> float:
    """Scale all tasks' gradients by one factor so that the norm of their sum is at most `max_norm`.

    This is what clipping by norm does to the summed loss (`torch.nn.utils.clip_grad_norm_`); the tasks keep their
    proportions.

    Args:
        gradients: per task; the lists are changed in place.
        max_norm: largest allowed norm, over all parameters together.

    Returns:
        The norm before.
    """
    sums = [
        torch.stack(present).sum(dim=0)
        for column in zip(*gradients.values(), strict=True)
        if (present := [gradient for gradient in column if gradient is not None])
    ]
    norm = float(nn.utils.get_total_norm(sums))
    if not norm <= max_norm:
        for values in gradients.values():
            # The same 1e-6 as torch's, so that both modes of optimisation clip alike.
            values[:] = [None if gradient is None else gradient * (max_norm / (norm + 1e-6)) for gradient in values]
    return norm


def joint_gradients(gradients: TaskGradients) -> TaskGradients:
    """Every gradient's mean over the processes of the present step (`joint_step`), which reach the same parameters."""
    present = [value for values in gradients.values() for value in values if value is not None]
    means = iter(joint_means(present))
    return {task: [None if value is None else next(means) for value in values] for task, values in gradients.items()}


def accumulate(into: TaskGradients, new: TaskGradients) -> None:
    """Add the new gradients; a task or parameter without any stays absent or None.

    Args:
        into: the gradients so far, changed in place; empty at the start.
        new: of one more batch.
    """
    for task, values in new.items():
        before = into.get(task, [None] * len(values))
        into[task] = [_add(a, b) for a, b in zip(before, values, strict=True)]


def _add(total: Tensor | None, gradient: Tensor | None) -> Tensor | None:
    if gradient is None:
        return total
    return gradient if total is None else total + gradient
