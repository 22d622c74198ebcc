"""Best F-measure of a foreground map."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from branchtune.metrics.foreground import THRESHOLDS, foreground_counts
from branchtune.metrics.streaming import StreamingMetric


class MaxF(StreamingMetric):
    """Harmonic mean of mean precision and mean recall over images, at the best of 15 thresholds, in [0, 1].

    The "maxF" of saliency in the evaluation of MTLoRA (arXiv 2403.20320). In an image where nothing is true
    and nothing predicted both count as 1, as the IoU does (MTLoRA's code counts them as 0 here); where only one of
    them is empty, as 0. An image without any label is left out.
    """

    higher_is_better = True
    precision: Tensor
    recall: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_sum("precision", (len(THRESHOLDS),), torch.float64)
        self.add_sum("recall", (len(THRESHOLDS),), torch.float64)
        self.add_sum("images")

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, 1, H, W]`, target `[B, H, W]` in [0, 1], NaN ignored."""
        hits, predicted, true = foreground_counts(output, target)
        both_empty = (predicted + true == 0).double()
        self.precision += (hits / predicted.clamp(min=1) + both_empty).sum(dim=0)
        self.recall += (hits / true.clamp(min=1) + both_empty).sum(dim=0)
        self.images += len(hits)

    def compute(self) -> Tensor:
        """The best F, a float64 scalar; NaN without a labelled image."""
        precision, recall = self.precision / self.images, self.recall / self.images
        both = precision + recall
        return torch.where(both == 0, 0.0, 2 * precision * recall / both).max()
