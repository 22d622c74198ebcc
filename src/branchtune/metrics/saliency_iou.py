"""Best intersection over union of a foreground map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from branchtune.metrics.foreground import THRESHOLDS, foreground_counts
from branchtune.metrics.streaming import StreamingMetric


class MaxIoU(StreamingMetric):
    """IoU of the foreground, averaged over images, at the best of 15 thresholds, in [0, 1].

    The "mIoU" of saliency in the evaluation of MTLoRA (arXiv 2403.20320). An image where nothing is true and
    nothing predicted counts as 1; an image without any label is left out.
    """

    higher_is_better = True
    iou: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("iou", (len(THRESHOLDS),), torch.float64)
        self.add_sum("images")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, 1, H, W]`, target `[B, H, W]` in [0, 1], NaN ignored."""
        counts = foreground_counts(output, target)
        union = counts.predicted + counts.true - counts.hits
        self.iou += torch.where(union > 0, counts.hits / union, 1.0).sum(dim=0)
        self.images += len(union)

    def compute(self) -> Tensor:
        """The best mean IoU, a float64 scalar; NaN without a labelled image."""
        return (self.iou / self.images).max()
