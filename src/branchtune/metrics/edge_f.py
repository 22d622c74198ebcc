"""F-measure of edge maps with a tolerance in distance."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.metrics.disk import disk_max
from branchtune.metrics.streaming import StreamingMetric

NUM_THRESHOLDS = 99


class BestEdgeF(StreamingMetric):
    """Best F over the thresholds 0.01, ..., 0.99 of the sigmoid, with pixel counts pooled over the whole set.

    At each threshold a predicted pixel (probability >= threshold) is correct if a true edge lies within the
    tolerance, and a true pixel is found if a predicted one does. This is *not* the protocol of BSDS and
    seism: pixels are not matched one to one and predictions are not thinned, so that thick predictions lose
    less and values are higher.

    All thresholds share two maximum filters over the disk of the tolerance: of the true map for precision, of
    the predicted probability for recall. The counts equal those of a distance transform per threshold.

    Args:
        max_dist: the tolerance as a fraction of the image diagonal.
    """

    higher_is_better = True
    predicted: Tensor
    correct: Tensor
    found: Tensor
    true: Tensor

    def __init__(self, max_dist: float = 0.011, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= max_dist < 1:
            raise UserError(f"max_dist is a fraction of the image diagonal in [0, 1), got {max_dist}")
        self.max_dist = max_dist
        for name in ("predicted", "correct", "found"):
            self.add_sum(name, (NUM_THRESHOLDS,))
        self.add_sum("true")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, 1, H, W]`, target `[B, H, W]`, an edge from 0.5 on, NaN ignored."""
        radius = self.max_dist * math.hypot(*target.shape[-2:])
        level = torch.where(target.isnan(), 0, _thresholds_passed(output[:, 0]))
        truth = target >= 0.5
        near_truth = disk_max(truth.float(), radius) > 0
        self.predicted += _count_from_above(level)
        self.correct += _count_from_above(level[near_truth])
        self.found += _count_from_above(disk_max(level.float(), radius)[truth].long())
        self.true += truth.sum()

    def compute(self) -> Tensor:
        """The best F in [0, 1], a float64 scalar; NaN without a true edge pixel in the set."""
        precision = self.correct / self.predicted.double().clamp(min=1)
        recall = self.found / self.true.double()
        both = precision + recall
        return torch.where(both == 0, 0.0, 2 * precision * recall / both).max()


def _thresholds_passed(logits: Tensor) -> Tensor:
    """How many of the thresholds the probability reaches, 0..99."""
    thresholds = torch.arange(1, NUM_THRESHOLDS + 1, dtype=torch.float64, device=logits.device) / 100
    return torch.bucketize(logits.double().sigmoid(), thresholds, right=True)


def _count_from_above(level: Tensor) -> Tensor:
    """Number of elements that reach threshold 1, 2, ..., 99."""
    counts = torch.bincount(level.flatten(), minlength=NUM_THRESHOLDS + 1)
    return counts.flip(0).cumsum(0).flip(0)[1:]
