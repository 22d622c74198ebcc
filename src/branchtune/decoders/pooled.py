"""The head of image-level tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class PooledHead(nn.Module):
    """Global average of the last level's map, LayerNorm, Linear: list of `[B, C, H, W]` -> `[B, out_channels]`."""

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels[-1])
        self.output = nn.Linear(channels[-1], out_channels)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return self.output(self.norm(maps[-1].mean(dim=(2, 3))))
