"""Top-1 accuracy."""

from __future__ import annotations

from torch import Tensor

from branchtune.ignored import IGNORED_LABEL
from branchtune.metrics.streaming import StreamingMean


class TopOneAccuracy(StreamingMean):
    """Fraction of labelled images whose largest logit is the true class, in [0, 1]."""

    higher_is_better = True

    def update(self, output: Tensor, target: Tensor) -> None:
        """Add a batch: logits `[B, C]`, target int64 `[B]`, -100 ignored."""
        self.add(output.argmax(dim=1) == target, target != IGNORED_LABEL)
