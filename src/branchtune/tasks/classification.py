"""Image classification."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError
from branchtune.ignored import IGNORED_LABEL
from branchtune.scalars import whole
from branchtune.tasks.masked import full_precision, mean_over
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class ImageClassification(Task):
    """One class per image: cross-entropy, top-1 accuracy.

    Output: logits `[B, num_classes]`. Target: int64 scalar in 0..num_classes-1, -100 ignored.

    Args:
        name: the task's name.
        num_classes: at least 2.
        weight: factor of the loss.
    """

    target_kind: ClassVar[TargetKind] = "image"
    headline: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str, num_classes: int, weight: float = 1.0) -> None:
        num_classes = whole(f"task {name!r}: num_classes", num_classes)
        if num_classes < 2:
            raise UserError(f"task {name!r}: num_classes must be at least 2, got {num_classes}")
        super().__init__(name, out_channels=num_classes, weight=weight)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        total = F.cross_entropy(full_precision(output), target, ignore_index=IGNORED_LABEL, reduction="sum")
        return mean_over(total, target != IGNORED_LABEL)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.accuracy import TopOneAccuracy

        return {"accuracy": TopOneAccuracy()}
