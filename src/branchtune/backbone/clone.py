"""A structural copy of the user's backbone that shares its frozen weights, and which weights may be its own."""

from __future__ import annotations

import copy
from collections.abc import Collection

import torch
from torch import nn


def clone_sharing_weights(backbone: nn.Module, trainable: Collection[str] = ()) -> nn.Module:
    """Copy the modules of `backbone`, not its weights: the original is left as it was, whatever happens to the copy.

    Args:
        backbone: any module.
        trainable: names of the parameters that get storage of their own and `requires_grad=True`; every other
            parameter and, unless something is trainable, every buffer shares its storage with the original.
    """
    memo: dict[int, object] = {}
    for name, parameter in backbone.named_parameters(remove_duplicate=False):
        if id(parameter) in memo:
            continue
        if name in trainable:
            memo[id(parameter)] = nn.Parameter(parameter.detach().clone(), requires_grad=True)
        else:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    if not trainable:
        for buffer in backbone.buffers():
            memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(backbone, memo)


def keep_frozen_statistics(module: nn.Module) -> None:
    """Put every normalisation layer with running statistics in eval mode, so that training cannot move them."""
    for child in module.modules():
        if isinstance(getattr(child, "running_mean", None), torch.Tensor):
            child.eval()
