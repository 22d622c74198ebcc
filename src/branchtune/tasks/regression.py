"""Image regression."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.scalars import whole
from branchtune.tasks.masked import check_same_shape, full_precision, masked, masked_mean
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class ImageRegression(Task):
    """One or more numbers per image: smooth L1, root mean squared error over all of them.

    Output: `[B, num_outputs]`. Target: float `[num_outputs]`, NaN ignored.

    Args:
        name: the task's name.
        num_outputs: how many numbers; bring them to similar scales, loss and metric add them up.
        weight: factor of the loss.
    """

    target_kind: ClassVar[TargetKind] = "image"
    image_target: ClassVar[Literal["class", "values"]] = "values"
    headline: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, name: str, num_outputs: int = 1, weight: float = 1.0) -> None:
        num_outputs = whole(f"task {name!r}: num_outputs", num_outputs)
        super().__init__(name, out_channels=num_outputs, weight=weight)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        check_same_shape(output, target)
        output, valid = full_precision(output), ~target.isnan()
        target = target.to(output.dtype)
        losses = F.smooth_l1_loss(masked(output, valid), masked(target, valid), reduction="none")
        return masked_mean(losses, valid)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.rmse import RMSE

        return {"rmse": RMSE()}
