"""Depth in metres."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric

from branchtune.evaluation.depth_error import DepthLogRMSE, DepthRMSE
from branchtune.tasks.masked import masked_l1
from branchtune.tasks.task import TargetKind, Task


class Depth(Task):
    """The distance of every pixel along the optical axis: L1, root mean squared error.

    Output: metres `[B, 1, H, W]`. Target: float `[H, W]` metres, above 0 and below 1000, NaN ignored.
    Metrics: "rmse" in metres and "log_rmse", the same of natural logarithms.

    Args:
        name: the task's name.
        weight: factor of the loss.
    """

    target_kind: ClassVar[TargetKind] = "depth"
    headline: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, name: str, weight: float = 1.0) -> None:
        super().__init__(name, out_channels=1, weight=weight)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return masked_l1(output[:, 0], target, ~target.isnan())

    def metrics(self) -> dict[str, Metric]:
        return {"rmse": DepthRMSE(), "log_rmse": DepthLogRMSE()}
