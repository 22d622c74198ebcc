"""Median of the angular error, and the share of pixels below usual limits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from branchtune.metrics.angular_error import angular_error
from branchtune.metrics.streaming import StreamingMetric

LIMITS = (11.25, 22.5, 30.0)
BINS_PER_DEGREE = 100


class AngleDistribution(StreamingMetric):
    """ "median_angle" in degrees, and "within_11.25", "within_22.5" and "within_30": the fraction of pixels below.

    Over all labelled pixels of the set, with the angles of `MeanAngularError`. The fractions are exact (strictly
    below the limit). The median comes from a histogram in steps of 0.01 degrees, the one form whose sums no order of
    batches or processes changes, and is at most 0.005 degrees off. A prediction that is NaN counts as 180 degrees.
    """

    higher_is_better = None
    histogram: Tensor
    within: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("histogram", (180 * BINS_PER_DEGREE,))
        self.add_sum("within", (len(LIMITS),))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: both `[B, 3, H, W]`, pixels with a NaN in any channel of the target ignored."""
        angle, valid = angular_error(output, target)
        angle = angle[valid].nan_to_num(180.0)
        bins = (angle * BINS_PER_DEGREE).long().clamp(max=len(self.histogram) - 1)
        self.histogram += torch.bincount(bins, minlength=len(self.histogram))
        self.within += torch.stack([(angle < limit).sum() for limit in LIMITS])

    def compute(self) -> dict[str, Tensor]:
        """Float64 scalars by name; NaN without a labelled pixel."""
        reached = self.histogram.cumsum(0)
        count = reached[-1]
        middle = torch.stack([(count - 1) // 2, count // 2])
        median = (torch.searchsorted(reached, middle, right=True).double().mean() + 0.5) / BINS_PER_DEGREE
        shares = self.within / count.double()
        values = {f"within_{limit:g}": share for limit, share in zip(LIMITS, shares, strict=True)}
        return {"median_angle": torch.where(count > 0, median, torch.nan), **values}
