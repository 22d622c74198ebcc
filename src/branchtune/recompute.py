"""Activation checkpointing: a level's blocks keep their inputs alone, and run again in the backward pass.

The run of a call is a context variable of the call; the backward pass is outside of it, and on a GPU in another thread.
What runs again therefore brings the run along. Forks, taps and what is attached to the block itself act outside of it,
once; the adapters inside it run again with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from branchtune.backbone.arguments import replace_arguments, tensor_arguments
from branchtune.backbone.clone import OwnForward
from branchtune.backbone.spec import BackboneSpec
from branchtune.errors import UserError
from branchtune.hooks import current_run
from branchtune.recompute_inputs import sources_noted
from branchtune.scalars import whole

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def recompute_blocks(
    model: nn.Module, spec: BackboneSpec, levels: bool | Sequence[int], train_backbone: bool
) -> tuple[int, ...]:
    """Let the blocks of these levels of `model`, a copy of the backbone, run again in the backward pass.

    Args:
        levels: numbers; True for all, False for none.

    Returns:
        The numbers of the levels.

    Raises:
        UserError: levels of another kind, one that does not exist or has no block; normalisation by batch statistics
            that trains, whose running statistics would move twice.
    """
    numbers = _numbers(levels, len(spec.levels))
    for level in numbers:
        names = _blocks(model, spec, level)
        if not names:
            raise UserError(
                f"checkpoint_levels: level {level} of {spec.name} has no block that could run again in the backward "
                "pass, its layers are called one by one: leave it out"
            )
        for name in names:
            block = model.get_submodule(name)
            for module in block.modules():
                if train_backbone and isinstance(getattr(module, "running_mean", None), Tensor):
                    raise UserError(
                        f"checkpoint_levels: {name} of {spec.name} holds {type(module).__name__}, whose running "
                        "statistics would move twice where the whole backbone trains: set checkpoint_levels to false"
                    )
            block.forward = _Recomputed(block)
    return numbers


class _Recomputed(OwnForward):
    """The forward of a block during training: keeps the block's inputs, and the state of the random generators."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        run = current_run.get()
        if run is None or not self.module.training or not torch.is_grad_enabled():
            return self.plain(*args, **kwargs)
        tensors = tensor_arguments(args, kwargs)
        places = list(tensors)
        rest = replace_arguments(args, kwargs, dict.fromkeys(places))

        def again(*values: Tensor) -> Any:
            outer = current_run.get()
            current_run.set(run)
            try:
                own_args, own_kwargs = replace_arguments(*rest, dict(zip(places, values, strict=True)))
                with sources_noted(False):  # what the block keeps is dropped, and must be the same both times
                    return self.plain(*own_args, **own_kwargs)
            finally:
                current_run.set(outer)

        # Tensors are its arguments by position, from which it knows the devices whose random state to keep.
        return checkpoint(again, *tensors.values(), use_reentrant=False)


def _numbers(levels: bool | Sequence[int], depth: int) -> tuple[int, ...]:
    if isinstance(levels, bool):
        return tuple(range(depth)) if levels else ()
    if not isinstance(levels, Sequence) or isinstance(levels, str):
        raise UserError(f"checkpoint_levels={levels!r}: use true, false or a list of level numbers")
    numbers = sorted({whole("a level of checkpoint_levels", level) for level in levels})
    for level in numbers:
        if not 0 <= level < depth:
            raise UserError(f"checkpoint_levels names level {level}, the backbone has levels 0 to {depth - 1}")
    return tuple(numbers)


def _blocks(model: nn.Module, spec: BackboneSpec, level: int) -> list[str]:
    """The outermost modules that are called inside the level, hold neither end of any and are no stack of blocks."""
    modules = dict(model.named_modules())
    called = [site.name for site in spec.sites if site.level == level and site.kind == "block"]
    bounds = [name for each in spec.levels for name in (each.start, each.end)]
    stacks = {
        outer
        for name in called
        if isinstance(modules[name.rpartition(".")[0]], _CONTAINERS) and _num_layers(modules[name]) > 1
        for outer in called
        if name.startswith(f"{outer}.")
    }
    single = [
        name for name in called if name not in stacks and not any(bound.startswith(f"{name}.") for bound in bounds)
    ]
    return [name for name in single if not any(name.startswith(f"{outer}.") for outer in single)]


def _num_layers(module: nn.Module) -> int:
    return sum(isinstance(child, nn.Linear | nn.Conv2d) for child in module.modules())
