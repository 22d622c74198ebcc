"""Angle between predicted and true surface normals."""

from __future__ import annotations

import torch
from torch import Tensor

from branchtune.metrics.streaming import StreamingMean


class MeanAngularError(StreamingMean):
    """Mean angle in degrees between predicted and true normals over all labelled pixels of the set.

    Lengths do not matter. A prediction of length zero has no direction and counts as 90 degrees.
    """

    higher_is_better = False

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: both `[B, 3, H, W]`, pixels with a NaN in any channel of the target ignored."""
        self.add(*angular_error(output, target))


def angular_error(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees between two maps of vectors `[B, 3, H, W]`, and where the target is no NaN: float64, bool `[B, H, W]`."""
    a, b = _unit(output.double()), _unit(target.double())
    # Unlike acos of a cosine this keeps its digits near 0 and 180 degrees (W. Kahan, "How futile are
    # mindless assessments of roundoff", 2006), and it is 90 degrees where a is zero.
    angle = 2 * torch.atan2(_length(a - b), _length(a + b)).rad2deg()
    return angle[:, 0], ~target.isnan().any(dim=1)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / _length(vectors).clamp(min=1e-12)


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(dim=1, keepdim=True).sqrt()
