"""One training step of a model: forward, backward, optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from benchmarks.bench import Bench


class Step:
    """Calls take one step of AdamW; no gradient stays after it.

    Args:
        parameters: that train.
        losses: forward passes, each of which ends in a loss; each is followed by its backward pass.
    """

    def __init__(self, bench: Bench, parameters: Iterable[nn.Parameter], *losses: Callable[[], Tensor]) -> None:
        self.bench, self.losses = bench, losses
        self.optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad])

    def __call__(self) -> None:
        for loss in self.losses:
            with self.bench.autocast():
                value = loss()
            value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @property
    def state(self) -> list[Tensor]:
        """What the optimiser keeps."""
        found = [value for state in self.optimizer.state.values() for value in state.values()]
        return [value for value in found if isinstance(value, Tensor)]


def mean_square(outputs: dict[str, Tensor]) -> Tensor:
    """A loss of all outputs that costs next to nothing."""
    return torch.stack([output.square().mean() for output in outputs.values()]).sum()
