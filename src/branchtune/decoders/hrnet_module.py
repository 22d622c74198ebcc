"""The module of the HRNet-style decoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from branchtune.decoders.resample import resize


class HRNetModule(nn.Module):
    """See `HRNetDecoder`."""

    def __init__(self, channels: Sequence[int], out_channels: int, widths: Sequence[int], expansion: int) -> None:
        super().__init__()
        self.reductions = nn.ModuleList(nn.Conv2d(c, w, 1, bias=False) for c, w in zip(channels, widths, strict=True))
        total = sum(widths)
        self.head = nn.Sequential(
            nn.Conv2d(total, expansion * total, 1),
            nn.BatchNorm2d(expansion * total),
            nn.ReLU(),
            nn.Conv2d(expansion * total, out_channels, 1),
        )

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        finest = (max(m.shape[2] for m in maps), max(m.shape[3] for m in maps))
        reduced = [resize(reduction(x), finest) for reduction, x in zip(self.reductions, maps, strict=True)]
        return resize(self.head(torch.cat(reduced, dim=1)), size)
