"""Depth errors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from branchtune.metrics.rmse import RMSE
from branchtune.metrics.streaming import StreamingMean

SMALLEST_DEPTH = 1e-9


class DepthRMSE(RMSE):
    """RMSE in metres, pooled over all labelled pixels; predictions are clamped to at least 1e-9 m."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        super().update(_metres(output), target)


class DepthLogRMSE(RMSE):
    """RMSE between natural logarithms of depths, pooled and clamped as in `DepthRMSE`."""

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        super().update(_metres(output).log(), target.double().log())


class DepthAbsRel(StreamingMean):
    """Mean of |d - t| / t for depth d and true depth t, pooled and clamped as in `DepthRMSE` (arXiv 1406.2283)."""

    higher_is_better = False

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        true = target.double()
        self.add((_metres(output) - true).abs() / true, ~target.isnan())


class DepthWithin(StreamingMean):
    """Fraction of pixels with max(d / t, t / d) < 1.25^k, pooled and clamped as in `DepthRMSE` (arXiv 1406.2283).

    Args:
        k: the exponent; 1, 2 and 3 are usual.
    """

    higher_is_better = True

    def __init__(self, k: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limit = 1.25**k

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: metres, output `[B, 1, H, W]`, target `[B, H, W]`, NaN ignored."""
        ratio = _metres(output) / target.double()
        self.add(torch.maximum(ratio, 1 / ratio) < self.limit, ~target.isnan())


def _metres(output: Tensor) -> Tensor:
    return output[:, 0].double().clamp(min=SMALLEST_DEPTH)
