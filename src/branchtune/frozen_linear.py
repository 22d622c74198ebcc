"""A frozen Linear layer and the low-rank update of G groups on it, as one step of the autograd graph.

Autograd alone would copy the layer's output before it adds the update, and add up two gradients of the input, each as
large as it: y = W x + b + s B A x has dL/dx = W^T g + A^T (s B^T g), and a product can add to what is there.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.images import is_autocast


@dataclass(frozen=True)
class FrozenCall:
    """One call of a frozen Linear layer whose output nothing else holds.

    Attributes:
        weight: `[out, in]`.
        inputs: what the layer was given, `[..., in]`.
        output: what it returned, `[..., out]`.
    """

    weight: Tensor
    inputs: Tensor
    output: Tensor

    @classmethod
    def of(cls, module: nn.Module, inputs: Tensor, output: Tensor) -> FrozenCall | None:
        """The call, where a gradient through it is recorded and is that of a plain product with a fixed weight.

        Args:
            module: with the forward pass of `nn.Linear`, and nothing but it.
        """
        weight = _fixed_weight(module) if torch.is_grad_enabled() and not _watched(output) else None
        plain = weight is not None and type(inputs) in _PLAIN and type(output) in _PLAIN and output.is_contiguous()
        return cls(weight, inputs, output) if weight is not None and plain else None

    def adapted(self, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """y + s B_g A_g x for every group g, `[G * n, ..., out]`, in the memory of the output.

        Args:
            down: A, `[G, r, in]`.
            up: B, `[G, out, r]`.
            scale: s.
        """
        x = self.inputs.reshape(len(down), -1, self.inputs.shape[-1])
        # Detached: the function has the gradient of the layer, too, whose own step of the graph is dropped.
        adapted: Tensor = _Adapted.apply(x, down, up, self.output.detach(), self.weight, scale)
        return adapted


_PLAIN = (Tensor, nn.Parameter)  # other classes of tensors have products of their own


def _fixed_weight(module: nn.Module) -> Tensor | None:
    """The weight of a Linear layer that does not train; None where it is computed from other parameters."""
    weight, bias = module._parameters.get("weight"), getattr(module, "bias", None)
    trains = any(isinstance(tensor, Tensor) and tensor.requires_grad for tensor in (weight, bias))
    return None if trains or not isinstance(module, nn.Linear) or type(weight) not in _PLAIN else weight


def _watched(output: Tensor) -> bool:
    """Whether autocast, a compiler or a mode decides what runs, or may hold what an operator returns."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return traced or torch._C._len_torch_dispatch_stack() > 0 or is_autocast(output.device)


class _Adapted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, output: Tensor, weight: Tensor, scale: float) -> Tensor:
        hidden = torch.bmm(x, down.mT)
        y = output.view(len(x), -1, output.shape[-1])
        torch.baddbmm(y, hidden, up.mT, alpha=scale, out=y)
        ctx.save_for_backward(x, hidden, down, up, weight)
        ctx.scale = scale
        # The same memory as a tensor of its own: to change a view that a function returns is an error.
        memory = output.untyped_storage()
        return output.new_empty(0).set_(memory, output.storage_offset(), output.shape, output.stride())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, hidden, down, up, weight = ctx.saved_tensors
        device = gradient.device
        with torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext():
            if torch.is_grad_enabled():  # of this gradient another one will be taken
                hidden = torch.bmm(x, down.mT)
            g = gradient.reshape(len(x), -1, gradient.shape[-1])
            g_hidden = torch.bmm(g, up) * ctx.scale
            g_x = None
            if ctx.needs_input_grad[0]:
                g_x = torch.mm(g.reshape(-1, g.shape[-1]), weight).view_as(x).baddbmm_(g_hidden, down)
            g_down = torch.bmm(x.mT, g_hidden).mT
            g_up = (torch.bmm(hidden.mT, g) * ctx.scale).mT
        return g_x, g_down, g_up, None, None, None
