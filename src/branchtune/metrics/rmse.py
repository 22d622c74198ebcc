"""Root mean squared error."""

from __future__ import annotations

from torch import Tensor

from branchtune.metrics.streaming import StreamingMean


class RMSE(StreamingMean):
    """Root of the mean squared error, pooled over all labelled elements of the set."""

    higher_is_better = False

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: output and target of one shape, NaN in the target ignored."""
        self.add((output.double() - target.double()).square(), ~target.isnan())

    def compute(self) -> Tensor:
        """The error in the target's unit; NaN without a labelled element."""
        return super().compute().sqrt()
