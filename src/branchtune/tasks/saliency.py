"""Saliency: what stands out in an image."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.tasks.balanced_bce import balanced_bce
from branchtune.tasks.masked import full_precision
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class Saliency(Task):
    """The foreground of an image: class-balanced cross-entropy, best IoU over thresholds.

    Output: logits `[B, 1, H, W]`. Target: float `[H, W]` in [0, 1], NaN ignored; salient from 0.5 on. Loss:
    `balanced_bce` with the weight of the batch's own class balance. Metrics: "max_iou" and "max_f".

    Args:
        name: the task's name.
        weight: factor of the loss; 5 as in MTLoRA (arXiv 2403.20320).
    """

    target_kind: ClassVar[TargetKind] = "values"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    headline: ClassVar[str] = "max_iou"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str, weight: float = 5.0) -> None:
        super().__init__(name, out_channels=1, weight=weight)

    def prediction(self, output: Tensor) -> Tensor:
        """Probabilities `[B, H, W]`."""
        return full_precision(output[:, 0]).sigmoid()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return balanced_bce(output[:, 0], target)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.saliency_f import MaxF
        from branchtune.metrics.saliency_iou import MaxIoU

        return {"max_iou": MaxIoU(), "max_f": MaxF()}
