"""Depth errors."""

from __future__ import annotations

from torch import Tensor

from branchtune.evaluation.rmse import RMSE

SMALLEST_DEPTH = 1e-9


class DepthRMSE(RMSE):
    """RMSE in metres, pooled over all labelled pixels; predictions are clamped to at least 1e-9 m."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        super().update(output[:, 0].double().clamp(min=SMALLEST_DEPTH), target)


class DepthLogRMSE(RMSE):
    """RMSE between natural logarithms of depths, pooled and clamped as in `DepthRMSE`."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        super().update(output[:, 0].double().clamp(min=SMALLEST_DEPTH).log(), target.double().log())
