"""Tasks of a user's own, at the top of a module so that a configuration and a saved model can name them."""

from __future__ import annotations

from typing import NoReturn

from torch import Tensor

from branchtune.tasks.depth import Depth


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
