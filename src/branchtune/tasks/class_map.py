"""What tasks have in common that give every pixel one of C classes."""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError
from branchtune.ignored import IGNORED_CLASS
from branchtune.scalars import whole
from branchtune.tasks.masked import full_precision, mean_over
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class ClassMap(Task):
    """Per-pixel classification: cross-entropy, mean intersection over union.

    Output: logits `[B, num_classes, H, W]`. Target: int64 `[H, W]` in 0..num_classes-1, 255 ignored.

    Args:
        name: the task's name.
        num_classes: from 2 to 255.
        weight: factor of the loss.
    """

    target_kind: ClassVar[TargetKind] = "classes"
    headline: ClassVar[str] = "miou"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str, num_classes: int, weight: float = 1.0) -> None:
        num_classes = whole(f"task {name!r}: num_classes", num_classes)
        if not 2 <= num_classes <= IGNORED_CLASS:
            raise UserError(
                f"task {name!r}: num_classes must be from 2 to {IGNORED_CLASS}, got {num_classes}"
                f" ({IGNORED_CLASS} marks ignored pixels)"
            )
        super().__init__(name, out_channels=num_classes, weight=weight)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        total = F.cross_entropy(full_precision(output), target, ignore_index=IGNORED_CLASS, reduction="sum")
        return mean_over(total, target != IGNORED_CLASS)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.mean_iou import MeanIoU

        return {"miou": MeanIoU(self.out_channels)}
