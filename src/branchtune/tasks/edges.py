"""Edges: occlusions, creases, boundaries of objects."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor
from torchmetrics import Metric

from branchtune.errors import UserError
from branchtune.evaluation.edge_f import BestEdgeF
from branchtune.scalars import real
from branchtune.tasks.balanced_bce import balanced_bce
from branchtune.tasks.task import TargetKind, Task


class Edges(Task):
    """Whether a pixel is on an edge: balanced cross-entropy with a fixed weight, best F over thresholds.

    Output: logits `[B, 1, H, W]`. Target: float `[H, W]` in [0, 1], NaN ignored; an edge from 0.5 on. Metric:
    "best_f_dt" (`BestEdgeF`), which matches by distance and is not the one-to-one matching of the BSDS and
    seism benchmarks.

    Args:
        name: the task's name.
        weight: factor of the loss; 50 as in MTLoRA (arXiv 2403.20320).
        positive_weight: w in `balanced_bce`, strictly between 0 and 1; edges are rare.
    """

    target_kind: ClassVar[TargetKind] = "values"
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    headline: ClassVar[str] = "best_f_dt"
    higher_is_better: ClassVar[bool] = True

    def __init__(self, name: str, weight: float = 50.0, positive_weight: float = 0.95) -> None:
        positive_weight = real(f"task {name!r}: positive_weight", positive_weight)
        if not 0 < positive_weight < 1:
            raise UserError(f"task {name!r}: positive_weight must be between 0 and 1, got {positive_weight}")
        super().__init__(name, out_channels=1, weight=weight)
        self.positive_weight = positive_weight

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return balanced_bce(output[:, 0], target, self.positive_weight)

    def metrics(self) -> dict[str, Metric]:
        return {"best_f_dt": BestEdgeF()}
