"""One training step over several processes: losses are normalised by the counts of the joint batch.

Each process has its share of the joint batch and DDP averages their gradients. A mean over a process's own labelled
elements would weigh an element by how few others share its process; with the sums and counts of all processes the
averaged gradient is that of one process with the joint batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed
from torch import Tensor

_processes: ContextVar[int] = ContextVar("branchtune_processes", default=1)


@contextmanager
def joint_step() -> Iterator[None]:
    """Inside, losses are those of the joint batch of all processes; nothing changes where there is one process.

    All processes must then compute the same losses in the same order.
    """
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    token = _processes.set(torch.distributed.get_world_size() if together else 1)
    try:
        yield
    finally:
        _processes.reset(token)


def processes() -> int:
    """How many processes share the present step."""
    return _processes.get()


def joint_means(values: Sequence[Tensor]) -> list[Tensor]:
    """The mean of every tensor over the processes of the present step, in one exchange; all of one dtype and device."""
    if processes() == 1 or not values:
        return list(values)
    flat = joint_sum(torch.cat([value.detach().flatten() for value in values])) / processes()
    parts = flat.split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]


def joint_sum(value: Tensor) -> Tensor:
    """`value` added up over the processes of the present step, without a gradient; `value` itself in a single one."""
    if processes() == 1:
        return value
    total = value.detach().clone()
    torch.distributed.all_reduce(total)
    return total
