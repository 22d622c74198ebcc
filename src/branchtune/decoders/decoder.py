"""The interface of a decoder: features of a task's path -> the task's raw output."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

# Not from typing: jsonargparse would execute the guarded imports, and the command line's help would load torch.
from typing_extensions import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


class Decoder(ABC):
    """Configuration of a decoder family; `build` makes one module per dense task."""

    @abstractmethod
    def build(self, channels: Sequence[int], out_channels: int) -> nn.Module:
        """A module called as `decoder(maps, size)`.

        Args:
            channels: C_l of the feature map at the end of each level.
            out_channels: channels of the task's raw output.

        Returns:
            A module that maps a list of `[B, C_l, H_l, W_l]` and the input's `(H, W)` to `[B, out_channels, H, W]`. It
            must not change the maps in place, which the tasks of a group share: a first `nn.ReLU(inplace=True)` is
            refused when the model runs.
        """
