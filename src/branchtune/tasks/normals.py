"""Surface normals."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.tasks.masked import full_precision, masked_l1
from branchtune.tasks.targets import valid_elements
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric

SHORTEST = 1e-6


class Normals(Task):
    """The unit normal of the visible surface: L1, mean angular error in degrees.

    Output: `[B, 3, H, W]`, of unit length except where the decoder gives (nearly) zero, in the camera frame x
    right, y down, z forward. Target: float `[3, H, W]` of unit length, ignored pixels NaN in all three
    channels. Metrics: "mean_angle" and "median_angle" in degrees; "within_11.25", "within_22.5" and "within_30", the
    fraction of pixels whose error is below (`AngleDistribution`).

    Args:
        name: the task's name.
        weight: factor of the loss; 10 as in MTLoRA (arXiv 2403.20320).
    """

    target_kind: ClassVar[TargetKind] = "normals"
    headline: ClassVar[str] = "mean_angle"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, name: str, weight: float = 10.0) -> None:
        super().__init__(name, out_channels=3, weight=weight)

    def activate(self, raw: Tensor) -> Tensor:
        """Divide by the length over channels; vectors shorter than 1e-6 stay short. Not in half precision."""
        raw = full_precision(raw)
        # as F.normalize, which takes many times as long over the channels of a map on a CPU
        return raw * raw.square().sum(dim=1, keepdim=True).clamp(min=SHORTEST**2).rsqrt()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        valid = valid_elements(self, target)[:, None].expand_as(target)
        return masked_l1(output, target, valid)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.angle_distribution import AngleDistribution
        from branchtune.metrics.angular_error import MeanAngularError

        return {"mean_angle": MeanAngularError(), "distribution": AngleDistribution()}
