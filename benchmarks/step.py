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
        # Fused on a CPU for every side, as `branchtune.WeightedSum` is.
        fused = bench.device.type == "cpu" or None
        self.optimizer = torch.optim.AdamW([p for p in parameters if p.requires_grad], fused=fused)

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


def weighted_square(outputs: dict[str, Tensor]) -> Tensor:
    """A loss of all outputs that costs next to nothing: mean squares, summed over tasks and, times 1 / c, channels c.

    With equal weights, those of unit normals would add up to a constant, which has no gradient.
    """
    squares = [output.square().mean((0, 2, 3)) for output in outputs.values()]
    return torch.stack([(s / torch.arange(1, len(s) + 1, device=s.device)).sum() for s in squares]).sum()
