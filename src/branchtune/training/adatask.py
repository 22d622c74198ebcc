"""AdaTask (arXiv 2211.15055): Adam with moments per task, so that no task sets the step size of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.training.task_optimizer import TaskOptimizer, check_adam, parameter_groups

if TYPE_CHECKING:
    from branchtune.model import MultiTaskModel
    from branchtune.training.adatask_optimizer import AdaTaskOptimizer


@dataclass(frozen=True)
class AdaTask(TaskOptimizer):
    """Every task's gradient is normalised by its own Adam moments; the normalised updates are summed.

    A step takes one backward pass per task and keeps two moments per task for every parameter on its path. A
    parameter that T tasks share moves up to T times as far as under Adam: try a smaller `lr`, and name `decoder_lr`,
    since a decoder, which one task alone reaches, follows plain AdamW. Rescaling a task's loss, and so its weight,
    changes nothing but through `eps` and clipping.

    Not supported: fp16 with a gradient scaler (use bf16); `WeightedSum` supports it.

    Args:
        lr: peak learning rate of the adapters.
        decoder_lr: of the decoders; null: `lr`.
        backbone_lr: of the backbone's own weights that train: extras, or all under full fine-tuning; null: `lr`.
        weight_decay: decoupled, on the parameters that `WeightedSum` decays; the paper has none.
        betas: decay of the first and the second moment per step.
        eps: added to the root of the second moment.
    """

    per_task_gradients: ClassVar[bool] = True
    lr: float = 1e-3
    decoder_lr: float | None = None
    backbone_lr: float | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_adam(self)

    def build(self, model: MultiTaskModel) -> AdaTaskOptimizer:
        from branchtune.training.adatask_optimizer import AdaTaskOptimizer

        groups = parameter_groups(model, self.lr, self.decoder_lr, self.backbone_lr, self.weight_decay)
        return AdaTaskOptimizer(groups, lr=self.lr, betas=self.betas, eps=self.eps)

    def diagnostics(self, optimizer: AdaTaskOptimizer) -> dict[str, float]:
        """`dominance/<task>`: each task's share of the movement of what tasks share."""
        return {f"dominance/{task}": share for task, share in optimizer.dominance().items()}
