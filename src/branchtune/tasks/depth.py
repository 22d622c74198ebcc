"""Depth in metres."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.tasks.masked import masked_l1
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class Depth(Task):
    """The distance of every pixel along the optical axis: L1, root mean squared error.

    Output: metres `[B, 1, H, W]`. Target: float `[H, W]` metres, above 0 and below 1000, NaN ignored.
    Metrics: "rmse" in metres; "log_rmse", the same of natural logarithms; "abs_rel", the mean error relative to the
    true depth; "delta1", "delta2" and "delta3", the fraction of pixels within a factor of 1.25, 1.25^2 and 1.25^3.

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
        from branchtune.metrics.depth_error import DepthAbsRel, DepthLogRMSE, DepthRMSE, DepthWithin

        within: dict[str, Metric] = {f"delta{k}": DepthWithin(k) for k in (1, 2, 3)}
        return {"rmse": DepthRMSE(), "log_rmse": DepthLogRMSE(), "abs_rel": DepthAbsRel(), **within}
