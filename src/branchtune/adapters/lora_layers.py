"""LoRA parameters of one node at one site, and what G of them do to a folded batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.backbone.spec import Site
from branchtune.folded import split_groups
from branchtune.images import is_autocast
from branchtune.reach import Nodes


def _down(*shape: int) -> nn.Parameter:
    weight = torch.empty(*shape)
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
    return nn.Parameter(weight)


def _own(output: Tensor) -> Tensor | None:
    """Where the result may be written: into the frozen layer's output, if nothing records it.

    Not under autocast, which does not convert the operands of such calls, nor where a compiler decides.
    """
    busy = torch.is_grad_enabled() or torch.compiler.is_compiling() or is_autocast(output.device)
    return None if busy else output


def _add(output: Tensor, update: Tensor, scale: float) -> Tensor:
    return torch.add(output, update, alpha=scale, out=_own(output))


class LoRALinear(nn.Module):
    """A `[r, in]` and B `[out, r]` of a Linear layer or of a 1x1 convolution."""

    def __init__(self, site: Site, r: int) -> None:
        super().__init__()
        self.lora_A = _down(r, site.in_channels)
        self.lora_B = nn.Parameter(torch.zeros(site.out_channels, r))

    @staticmethod
    def adapt(site: Site, nodes: Nodes, inputs: Tensor, output: Tensor, scale: float) -> Tensor:
        """y + s B_g A_g x for every group g: inputs `[G * n, ..., in]`, output `[G * n, ..., out]`."""
        down, up = nodes.stack("lora_A"), nodes.stack("lora_B")
        if nodes.frozen is not None and down.requires_grad and up.requires_grad:
            return nodes.frozen.adapted(down, up, scale)
        if site.kind == "linear":
            x = inputs.reshape(len(nodes), -1, site.in_channels)
            y = output.reshape(len(nodes), -1, site.out_channels)
            return torch.baddbmm(y, torch.bmm(x, down.mT), up.mT, alpha=scale, out=_own(y)).view(output.shape)
        x = inputs[:, :, :: site.stride[0], :: site.stride[1]]
        columns = x.reshape(len(nodes), -1, site.in_channels, x.shape[2] * x.shape[3])
        update = torch.matmul(up[:, None], torch.matmul(down[:, None], columns))
        return _add(output, update.view(output.shape), scale)

    def delta(self, site: Site, scale: float) -> Tensor:
        """s B A, `[out, in]`, or `[out, in, 1, 1]` of a convolution."""
        change = scale * (self.lora_B @ self.lora_A)
        return change if site.kind == "linear" else change[:, :, None, None]


class LoRAConv(nn.Module):
    """A `[groups * r, in / groups, kh, kw]` and 1x1 B `[out, r, 1, 1]`, both with the convolution's channel groups."""

    def __init__(self, site: Site, r: int) -> None:
        super().__init__()
        self.lora_A = _down(site.groups * r, site.in_channels // site.groups, *site.kernel_size)
        self.lora_B = nn.Parameter(torch.zeros(site.out_channels, r, 1, 1))

    @staticmethod
    def adapt(site: Site, nodes: Nodes, inputs: Tensor, output: Tensor, scale: float) -> Tensor:
        """y + s B_g * A_g * x for every group g: inputs `[G * n, in, H, W]`, output `[G * n, out, H', W']`."""
        parts = []
        for down, up, x in zip(
            nodes.stack("lora_A"), nodes.stack("lora_B"), split_groups(inputs, len(nodes)), strict=True
        ):
            hidden = F.conv2d(x, down, None, site.stride, site.padding, site.dilation, site.groups)
            parts.append(F.conv2d(hidden, up, groups=site.groups))
        return _add(output, torch.cat(parts), scale)

    def delta(self, site: Site, scale: float) -> Tensor:
        """s B A of every channel group, `[out, in / groups, kh, kw]`."""
        up = self.lora_B.reshape(site.groups, site.out_channels // site.groups, -1)
        down = self.lora_A.reshape(site.groups, up.shape[2], -1)
        return scale * torch.bmm(up, down).view(site.out_channels, *self.lora_A.shape[1:])


class KernelDelta(nn.Module):
    """A change of a depthwise kernel, `[out, 1, kh, kw]`: no low-rank form is smaller than it."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.zeros(site.out_channels, 1, *site.kernel_size))

    @staticmethod
    def adapt(site: Site, nodes: Nodes, inputs: Tensor, output: Tensor, scale: float) -> Tensor:
        """y + dW_g * x for every group g, not scaled: inputs `[G * n, in, H, W]`, output `[G * n, out, H', W']`."""
        parts = [
            F.conv2d(x, kernel, None, site.stride, site.padding, site.dilation, site.groups)
            for kernel, x in zip(nodes.stack("kernel"), split_groups(inputs, len(nodes)), strict=True)
        ]
        return _add(output, torch.cat(parts), 1.0)

    def delta(self, site: Site, scale: float) -> Tensor:
        """The change itself, which no scale multiplies."""
        return self.kernel
