"""A structural copy of the user's backbone that shares its frozen weights, and which weights may be its own."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import Tensor, nn


class OwnHook:
    """A hook that branchtune puts on its own copy of a backbone; a copy of that copy starts without it."""


class OwnForward:
    """What branchtune calls in place of a module's forward, on its own copy; a copy of that copy starts without it.

    Attributes:
        module: whose forward it is.
        plain: the forward in whose place it is called.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module, self.plain = module, module.forward

    def remove(self) -> None:
        del self.module.forward
        if getattr(self.plain, "__func__", None) is not type(self.module).forward:
            self.module.forward = self.plain  # the user's own, on this one module


@torch.inference_mode(False)
def clone_sharing_weights(backbone: nn.Module, trainable: Collection[str] = ()) -> nn.Module:
    """Copy the modules of `backbone`, not its weights: the original is left as it was, whatever happens to the copy.

    Args:
        backbone: any module; branchtune's own hooks, where another model owns it, are not copied.
        trainable: names of the parameters that get storage of their own and `requires_grad=True`; every other
            parameter and, unless something is trainable, every buffer shares its storage with the original (but for
            tensors made in inference mode, through which no gradient can pass: they are copied).
    """
    memo: dict[int, object] = {}
    for name, parameter in backbone.named_parameters(remove_duplicate=False):
        if id(parameter) in memo:
            continue
        if name in trainable:
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=True)
        else:
            memo[id(parameter)] = nn.Parameter(_shared(parameter), requires_grad=False)
    if not trainable:
        for buffer in backbone.buffers():
            memo[id(buffer)] = _shared(buffer)
    for module in backbone.modules():
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values()):
            if isinstance(hook, OwnHook):
                memo[id(hook)] = hook  # else its owner, a whole model, would be copied with it
    clone = copy.deepcopy(backbone, memo)
    for module in clone.modules():
        drop_own_hooks(module)
    return clone


def _shared(tensor: Tensor) -> Tensor:
    return tensor.detach().clone() if tensor.is_inference() else tensor.detach()


def drop_own_hooks(module: nn.Module) -> None:
    """Remove from one module every hook that branchtune put on it, and what it calls in place of its forward."""
    if isinstance(module.forward, OwnForward):
        module.forward.remove()
    for hooks, with_kwargs in (
        (module._forward_hooks, module._forward_hooks_with_kwargs),
        (module._forward_pre_hooks, module._forward_pre_hooks_with_kwargs),
    ):
        for key in [key for key, hook in hooks.items() if isinstance(hook, OwnHook)]:
            del hooks[key]
            with_kwargs.pop(key, None)


def keep_frozen_statistics(module: nn.Module) -> None:
    """Put every normalisation layer with running statistics in eval mode, so that training cannot move them."""
    for child in module.modules():
        if isinstance(getattr(child, "running_mean", None), torch.Tensor):
            child.eval()
