"""Semantic segmentation."""

from __future__ import annotations

from branchtune.tasks.class_map import ClassMap


class SemanticSegmentation(ClassMap):
    """The class of every pixel; see `ClassMap` for output, target, loss and metric.

    Args:
        name: the task's name.
        num_classes: number of classes, the background included where the data has one.
        weight: factor of the loss.
    """
