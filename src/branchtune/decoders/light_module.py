"""The module of the light decoder."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.decoders.resample import resize


class LightModule(nn.Module):
    """See `LightDecoder`; `stride` fixes the resolution of the fused map."""

    def __init__(self, channels: Sequence[int], out_channels: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.laterals = nn.ModuleList(nn.Conv2d(c, dim, 1) for c in channels)
        self.fused_norm = nn.GroupNorm(8, dim)
        self.mix = nn.Conv2d(dim, dim, 3, padding=1)
        self.mixed_norm = nn.GroupNorm(8, dim)
        self.output = nn.Conv2d(dim, out_channels, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        grid = (-(-size[0] // self.stride), -(-size[1] // self.stride))
        laterals = [resize(lateral(x), grid) for lateral, x in zip(self.laterals, maps, strict=True)]
        x = F.gelu(self.fused_norm(sum(laterals[1:], laterals[0])))
        x = F.gelu(self.mixed_norm(self.mix(x)))
        return resize(self.output(x), size)
