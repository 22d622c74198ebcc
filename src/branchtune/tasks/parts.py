"""Human part segmentation."""

from __future__ import annotations

from branchtune.tasks.class_map import ClassMap


class HumanParts(ClassMap):
    """The body part that every pixel shows; see `ClassMap` for output, target, loss and metric.

    Images without a person are ignored as a whole: every pixel of their target is 255.

    Args:
        name: the task's name.
        num_classes: number of parts plus one for the background (class 0).
        weight: factor of the loss; 2 as in MTLoRA (arXiv 2403.20320).
    """

    def __init__(self, name: str, num_classes: int = 7, weight: float = 2.0) -> None:
        super().__init__(name, num_classes, weight)
