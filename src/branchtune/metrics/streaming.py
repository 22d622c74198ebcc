"""What the metrics share: sums that any split into batches or processes adds up to the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric


class StreamingMetric(Metric):
    """A `torchmetrics.Metric` whose states are sums: int64 counts, float64 totals.

    They stay so whatever the precision of the model, and `compute` without any labelled element is NaN.
    """

    full_state_update = False
    is_differentiable = False

    def add_sum(self, name: str, shape: tuple[int, ...] = (), dtype: torch.dtype = torch.int64) -> None:
        """Register the state `name`: zeros, added up over processes."""
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    @property
    def update_called(self) -> bool:
        """Always true: `compute` before the first update is no mistake here, it is NaN, without a warning."""
        return True

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> nn.Module:
        # `module.to(torch.bfloat16)` reaches the states too; they follow the device and keep their dtype.
        def device_only(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(device_only, exclude_state)


class StreamingMean(StreamingMetric):
    """Mean over all labelled elements of a set; a subclass writes `update` with `add`."""

    total: Tensor
    count: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("total", dtype=torch.float64)
        self.add_sum("count")

    def add(self, values: Tensor, valid: Tensor) -> None:
        """Add the elements of `values` marked `valid` (same shape)."""
        self.total += torch.where(valid, values.double(), 0.0).sum()
        self.count += valid.sum()

    def compute(self) -> Tensor:
        """The mean, a float64 scalar; NaN without a labelled element."""
        return self.total / self.count
