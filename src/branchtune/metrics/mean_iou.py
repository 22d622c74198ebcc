"""Mean intersection over union of classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from branchtune.ignored import IGNORED_CLASS
from branchtune.metrics.streaming import StreamingMetric


class MeanIoU(StreamingMetric):
    """TP / (TP + FP + FN) per class over the whole set, averaged over all classes, in [0, 1].

    A class that neither occurs nor is predicted counts as 0, as in the evaluation of MTLoRA (arXiv
    2403.20320): values on a small set are low, and comparable only with values on the same set.

    Args:
        num_classes: number of classes C.
        ignored: value of target pixels that carry no label.
    """

    higher_is_better = True
    pairs: Tensor

    def __init__(self, num_classes: int, ignored: int = IGNORED_CLASS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.ignored = ignored
        self.add_sum("pairs", (num_classes, num_classes))

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, C, H, W]`, target int64 `[B, H, W]`."""
        valid = target != self.ignored
        predicted = output.max(dim=1).indices  # on a CPU half the time of argmax
        pair = target[valid] * self.num_classes + predicted[valid]
        self.pairs += torch.bincount(pair, minlength=self.num_classes**2).view_as(self.pairs)

    def compute(self) -> Tensor:
        """The mean IoU, a float64 scalar; NaN without a labelled pixel."""
        hits = self.pairs.diagonal()
        union = self.pairs.sum(dim=0) + self.pairs.sum(dim=1) - hits
        iou = hits / union.double().clamp(min=1e-8)
        return torch.where(self.pairs.sum() > 0, iou.mean(), torch.nan)
