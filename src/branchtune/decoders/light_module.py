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
        x = F.gelu(self.fused_norm(self._fuse(maps, grid)))
        x = F.gelu(self.mixed_norm(self.mix(x)))
        return resize(self.output(x), size)

    def _fuse(self, maps: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """The sum of all laterals at `grid`; those of one size, as in a plain ViT, are resampled together."""
        by_size: dict[tuple[int, int], Tensor] = {}
        for lateral, x in zip(self.laterals, maps, strict=True):
            size = (x.shape[2], x.shape[3])
            by_size[size] = by_size[size] + lateral(x) if size in by_size else lateral(x)
        first, *rest = (resize(x, grid) for x in by_size.values())
        return sum(rest, first)
