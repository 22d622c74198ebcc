"""The learning rate over training: linear warm-up, then cosine or constant."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.errors import UserError, unknown

if TYPE_CHECKING:
    import torch

Kind = Literal["cosine", "constant"]


@dataclass(frozen=True)
class Schedule:
    """A factor on every group's learning rate, per optimiser step (the recipe of arXiv 2403.20320 by default).

    The factor is a pure function of the step, applied by torch's `LambdaLR`, rather than one of timm's schedulers:
    a resumed run then continues exactly, with nothing to restore but the step.

    Args:
        warmup_epochs: length of the linear warm-up, in epochs; fractions are allowed.
        warmup_start: factor at the first step.
        min_factor: factor at the end of a cosine.
        kind: after the warm-up, `cosine` falls to `min_factor`, `constant` stays at 1.
    """

    warmup_epochs: float = 1.0
    warmup_start: float = 1e-3
    min_factor: float = 0.01
    kind: Kind = "cosine"

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_epochs < math.inf:
            raise UserError(f"warmup_epochs must be a finite number of at least 0, got {self.warmup_epochs}")
        if not 0 < self.warmup_start <= 1:
            raise UserError(f"warmup_start must be in (0, 1], got {self.warmup_start}")
        if not 0 <= self.min_factor <= 1:
            raise UserError(f"min_factor must be in [0, 1], got {self.min_factor}")
        if self.kind not in get_args(Kind):
            raise unknown("schedule", self.kind, get_args(Kind))

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """The factor at `step`: 1 at the end of the warm-up, `min_factor` from `total_steps` on.

        Args:
            step: optimiser steps done so far.
            steps_per_epoch: optimiser steps of one epoch.
            total_steps: optimiser steps of the whole training.

        Raises:
            UserError: the warm-up is longer than the training.
        """
        warmup = self.warmup_epochs * steps_per_epoch
        if warmup > total_steps:
            raise UserError(
                f"a warm-up of {self.warmup_epochs:g} epochs ({warmup:g} steps) is longer than the training "
                f"({total_steps} steps): lower schedule.warmup_epochs or train longer"
            )
        if step < warmup:
            return self.warmup_start + (1 - self.warmup_start) * step / warmup
        if self.kind == "constant" or step == warmup:
            return 1.0
        if step >= total_steps:
            return self.min_factor
        progress = (step - warmup) / (total_steps - warmup)
        return self.min_factor + (1 - self.min_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    def build(
        self, optimizer: torch.optim.Optimizer, steps_per_epoch: int, total_steps: int
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """The scheduler of `optimizer`, to be stepped after every optimiser step; see `factor`."""
        from torch.optim.lr_scheduler import LambdaLR

        return LambdaLR(optimizer, lambda step: self.factor(step, steps_per_epoch, total_steps))
