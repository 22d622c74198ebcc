"""The HRNet-style fusion head of the MTLoRA protocol."""

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
class HRNetDecoder(Decoder):
    """1x1 reductions, concatenation at the finest level, 1x1 convolution, BatchNorm, ReLU, 1x1 classifier.

    Args:
        widths: channels of each level after its reduction (no bias), coarse levels last.
        expansion: hidden channels as a multiple of the concatenation's.
    """

    widths: tuple[int, ...] = (18, 36, 72, 144)
    expansion: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.widths, str) or not isinstance(self.widths, Sequence):
            raise UserError(f"HRNetDecoder widths={self.widths!r}: give one number for each level, such as (18, 36)")
        object.__setattr__(self, "widths", tuple(whole("HRNetDecoder widths", width) for width in self.widths))
        object.__setattr__(self, "expansion", whole("HRNetDecoder expansion", self.expansion))
        if min((*self.widths, self.expansion)) < 1:
            raise UserError(
                f"HRNetDecoder widths and expansion must be at least 1, got {self.widths}, {self.expansion}"
            )

    def build(self, channels: Sequence[int], out_channels: int) -> nn.Module:
        from branchtune.decoders.hrnet_module import HRNetModule

        if len(channels) != len(self.widths):
            raise UserError(
                f"HRNetDecoder has {len(self.widths)} widths, the backbone {len(channels)} levels: set widths"
            )
        return HRNetModule(channels, out_channels, self.widths, self.expansion)
