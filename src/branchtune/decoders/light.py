"""The light decoder: lateral 1x1 convolutions, a sum at one stride, one 3x3 convolution, a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

from branchtune.decoders.decoder import Decoder
from branchtune.errors import UserError
from branchtune.scalars import whole

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class LightDecoder(Decoder):
    """A decoder that costs little beside a small backbone and keeps no batch statistics.

    Args:
        dim: channels of the fused map.
        stride: of the fused map with respect to the input; features are resampled to it bilinearly.
    """

    dim: int = 64
    stride: int = 4

    def __post_init__(self) -> None:
        for key in ("dim", "stride"):
            object.__setattr__(self, key, whole(f"LightDecoder {key}", getattr(self, key)))
        if self.dim < 8 or self.dim % 8:
            raise UserError(f"LightDecoder dim must be a multiple of 8, got {self.dim}")
        if self.stride < 1:
            raise UserError(f"LightDecoder stride must be at least 1, got {self.stride}")

    def build(self, channels: Sequence[int], out_channels: int) -> nn.Module:
        from branchtune.decoders.light_module import LightModule

        return LightModule(channels, out_channels, self.dim, self.stride)
