"""The largest value within a distance of every pixel."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def disk_max(maps: Tensor, radius: float) -> Tensor:
    """Maximum over the disk around each pixel: `[B, H, W]` floats -> the same shape.

    Args:
        maps: any float maps.
        radius: in pixels, Euclidean; a pixel at exactly this distance is inside.

    A disk is a stack of horizontal runs, one per row offset, and a run is a one-dimensional max-pooling.
    """
    height, reach = maps.shape[-2], math.floor(radius)
    result = torch.full_like(maps, -torch.inf)
    for dy in range(min(reach + 1, height)):
        half = max(dx for dx in range(reach + 1) if math.sqrt(dx * dx + dy * dy) <= radius)
        run = F.max_pool1d(maps, 2 * half + 1, stride=1, padding=half)
        above, below = slice(0, height - dy), slice(dy, height)
        result[:, below] = torch.maximum(result[:, below], run[:, above])
        result[:, above] = torch.maximum(result[:, above], run[:, below])
    return result
