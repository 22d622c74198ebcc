"""The weighted sum of the tasks' losses under AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.training.task_optimizer import TaskOptimizer, check_adam, parameter_groups

if TYPE_CHECKING:
    import torch

    from branchtune.model import MultiTaskModel


@dataclass(frozen=True)
class WeightedSum(TaskOptimizer):
    """AdamW on sum_t w_t L_t, with the weights w_t of the tasks (the recipe of arXiv 2403.20320).

    Args:
        lr: peak learning rate of the adapters.
        decoder_lr: of the decoders; null: `lr`.
        backbone_lr: of the backbone's own weights that train: extras, or all under full fine-tuning; null: `lr`.
        weight_decay: decoupled; not applied to one-dimensional parameters, biases and relative-position tables.
        betas: decay of the first and the second moment per step.
        eps: added to the root of the second moment.
    """

    lr: float = 1e-3
    decoder_lr: float | None = None
    backbone_lr: float | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_adam(self)

    def build(self, model: MultiTaskModel) -> torch.optim.Optimizer:
        import torch

        groups = parameter_groups(model, self.lr, self.decoder_lr, self.backbone_lr, self.weight_decay)
        # One kernel for all parameters: the many small calls take 4 to 5 % of a step on a CPU core. On a GPU torch's
        # default does as well, and goes with loss scaling and clipping together, as the fused kernel does not.
        fused = all(parameter.device.type == "cpu" for group in groups for parameter in group["params"])
        optimizer: Any = torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused or None)
        # That it could divide by a loss scale itself is why Lightning refuses to clip under any mixed precision, bf16
        # without a scale as well; left to the scaler it is clipped as any other.
        optimizer._step_supports_amp_scaling = False
        return optimizer
