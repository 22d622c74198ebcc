"""Tasks of a user's own, at the top of a module so that a configuration and a saved model can name them."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

from branchtune.tasks.class_map import ClassMap
from branchtune.tasks.depth import Depth
from branchtune.tasks.task import Task


class PositiveDepth(Depth):
    """Depth whose decoder gives logarithms: activating twice would show."""

    def activate(self, raw: Tensor) -> Tensor:
        return raw.clamp(max=5).exp()


class LossFails(Depth):
    """Depth whose loss raises, as one does that divides by the number of valid pixels where there are none."""

    def loss(self, output: Tensor, target: Tensor) -> NoReturn:
        raise ZeroDivisionError("no pixel is valid")


class PredictionFails(Depth):
    """Depth whose prediction raises."""

    def prediction(self, output: Tensor) -> NoReturn:
        raise KeyError("scale")


class ManyClasses(ClassMap):
    """More classes than 8 bits hold, of which it predicts the one whose number marks ignored pixels in targets."""

    def __init__(self, name: str) -> None:
        Task.__init__(self, name, out_channels=300)

    def prediction(self, output: Tensor) -> Tensor:
        return torch.full_like(output[:, 0], 255).to(torch.uint16)
