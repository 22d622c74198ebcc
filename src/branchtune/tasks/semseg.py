"""Semantic segmentation."""

from __future__ import annotations

from branchtune.tasks.class_map import ClassMap


class SemanticSegmentation(ClassMap):
    """The class of every pixel: cross-entropy, mean intersection over union.

    Output: logits `[B, num_classes, H, W]`. Target: int64 `[H, W]` in 0..num_classes-1, 255 ignored. Metric: "miou".

    Args:
        name: the task's name.
        num_classes: number of classes, the background included where the data has one.
        weight: factor of the loss.
    """
