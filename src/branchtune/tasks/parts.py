"""Human part segmentation."""

from __future__ import annotations

from branchtune.tasks.class_map import ClassMap


class HumanParts(ClassMap):
    """The body part that every pixel shows: cross-entropy, mean intersection over union.

    Output: logits `[B, num_classes, H, W]`. Target: int64 `[H, W]` in 0..num_classes-1, 255 ignored. Metric: "miou".
    Images without a person are ignored as a whole: every pixel of their target is 255.

    Args:
        name: the task's name.
        num_classes: number of parts plus one for the background (class 0).
        weight: factor of the loss; 2 as in MTLoRA (arXiv 2403.20320).
    """

    def __init__(self, name: str, num_classes: int = 7, weight: float = 2.0) -> None:
        super().__init__(name, num_classes, weight)
