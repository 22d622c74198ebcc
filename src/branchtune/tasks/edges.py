"""Edges: occlusions, creases, boundaries of objects."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

# Not from typing: jsonargparse would execute the guarded import, which takes longer than that of torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError
from branchtune.scalars import real
from branchtune.tasks.balanced_bce import balanced_bce
from branchtune.tasks.masked import full_precision
from branchtune.tasks.task import TargetKind, Task

if TYPE_CHECKING:
    from torchmetrics import Metric


class Edges(Task):
    """Whether a pixel is on an edge: balanced cross-entropy with a fixed weight, best F over thresholds.

    Output: logits `[B, 1, H, W]`. Target: float `[H, W]` in [0, 1], NaN ignored; an edge from 0.5 on. Metric:
    "best_f_dt" (`BestEdgeF`), which matches by distance. With `match_dist` a finished model also gets "ods_f", "ois_f"
    and "ap" (`MatchedEdgeF`), which match one to one as the BSDS and seism benchmarks do, at about a second per
    image; the validation of every epoch stays without them. A model that was trained without it is evaluated so:

    ```python
    model.tasks["edge"].match_dist = 0.011
    results = evaluate(model, batches)  # branchtune.evaluation.evaluate
    ```

    Args:
        name: the task's name.
        weight: factor of the loss; 50 as in MTLoRA (arXiv 2403.20320).
        positive_weight: w in `balanced_bce`, strictly between 0 and 1; edges are rare.
        match_dist: tolerance of the one-to-one matching, as a fraction of the image diagonal in [0, 1): 0.0075 is
            usual, for NYUD-v2 0.011; null leaves these metrics out.
    """

    target_kind: ClassVar[TargetKind] = "values"
    thin_lines: ClassVar[bool] = True
    value_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    headline: ClassVar[str] = "best_f_dt"
    higher_is_better: ClassVar[bool] = True

    def __init__(
        self, name: str, weight: float = 50.0, positive_weight: float = 0.95, match_dist: float | None = None
    ) -> None:
        positive_weight = real(f"task {name!r}: positive_weight", positive_weight)
        if not 0 < positive_weight < 1:
            raise UserError(f"task {name!r}: positive_weight must be between 0 and 1, got {positive_weight}")
        match_dist = match_dist if match_dist is None else real(f"task {name!r}: match_dist", match_dist)
        if match_dist is not None and not 0 <= match_dist < 1:
            raise UserError(
                f"task {name!r}: match_dist is a fraction of the image diagonal in [0, 1), got {match_dist}"
            )
        super().__init__(name, out_channels=1, weight=weight)
        self.positive_weight = positive_weight
        self.match_dist = match_dist

    def prediction(self, output: Tensor) -> Tensor:
        """Probabilities `[B, H, W]`."""
        return full_precision(output[:, 0]).sigmoid()

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return balanced_bce(output[:, 0], target, self.positive_weight)

    def metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.edge_f import BestEdgeF

        return {"best_f_dt": BestEdgeF()}

    def final_metrics(self) -> dict[str, Metric]:
        from branchtune.metrics.edge_matching import MatchedEdgeF

        return {} if self.match_dist is None else {"matched": MatchedEdgeF(self.match_dist)}
