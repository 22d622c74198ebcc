"""Features of one task's path -> what the model returns for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from branchtune.errors import UserError
from branchtune.tasks.task import Task


def decode(task: Task, decoder: nn.Module, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Run the decoder of a task.

    Args:
        maps: per level `[B, C_l, H_l, W_l]`; tasks of one group read the same memory.
        size: of the input.

    Raises:
        UserError: the decoder changed a map in place, which would change what other tasks read.
    """
    versions = [_version(x) for x in maps]
    try:
        raw = decoder(maps, size)
    except RuntimeError as error:
        if "modified inplace" in str(error):
            raise _in_place(task) from error
        raise
    if versions != [_version(x) for x in maps]:
        raise _in_place(task)
    return task.activate(raw)


def _version(tensor: Tensor) -> int:
    """How often it was written to; unknown in inference mode, and while torch.compile traces."""
    return 0 if torch.compiler.is_compiling() or tensor.is_inference() else tensor._version


def _in_place(task: Task) -> UserError:
    return UserError(
        f"the decoder of task {task.name!r} changes a feature map in place, which the other tasks of its group read as "
        "well: let its first operation return a new tensor (nn.ReLU(inplace=False)), or clone the map"
    )
