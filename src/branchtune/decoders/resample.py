"""Bilinear resampling of maps."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, *size]`, bilinear; the tensor itself when it has that size."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
