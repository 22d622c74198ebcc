"""Bottleneck parameters of one node at one block, and what G of them do to a folded batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.backbone.spec import Site
from branchtune.reach import Nodes


class BottleneckLayer(nn.Module):
    """W_down `[width, channels]`, W_up `[channels, width]` and their biases; W_up = 0 makes it the identity."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(width, channels))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.down_bias = nn.Parameter(torch.zeros(width))
        self.up = nn.Parameter(torch.zeros(channels, width))
        self.up_bias = nn.Parameter(torch.zeros(channels))

    @staticmethod
    def adapt(site: Site, nodes: Nodes, output: Tensor, activation: str) -> Tensor:
        """h + W_up act(W_down h + b) + b for every group: `[G * n, ...]` of the same shape."""
        down, down_bias, up, up_bias = (nodes.stack(name) for name in ("down", "down_bias", "up", "up_bias"))
        h = output.movedim(site.channel_axis, -1)
        x = h.reshape(len(nodes), -1, site.out_channels)
        hidden = getattr(F, activation)(torch.baddbmm(down_bias[:, None], x, down.mT))
        change = torch.baddbmm(up_bias[:, None], hidden, up.mT)
        return output + change.view(h.shape).movedim(-1, site.channel_axis)
