"""The hooks by which one call of a branched model folds, adapts and taps the backbone's own code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from branchtune.backbone.arguments import replace_arguments, tensor_arguments
from branchtune.backbone.clone import OwnHook
from branchtune.backbone.features import first_tensor
from branchtune.backbone.recorder import StopForward
from branchtune.backbone.spec import SideInput, Site
from branchtune.folded import split_groups
from branchtune.frozen_linear import FrozenCall
from branchtune.reach import Nodes, Reach
from branchtune.recompute_inputs import keeping_source_of
from branchtune.route import Route
from branchtune.scoped import Scoped

if TYPE_CHECKING:
    from branchtune.branching import BranchedBackbone


@dataclass
class Run:
    """One call of the model: its route, batch size, and the features that its hooks have kept so far."""

    route: Route
    batch: int
    reach: Reach
    taps: list[Tensor] = field(default_factory=list)


# The run is an argument of the call, not state of the module, so that threads and nested calls do not disturb it.
current_run: Scoped[Run] = Scoped("branchtune_run")


class Fork(OwnHook):
    """Before a level's first module: gather each child's rows from its parent's."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = current_run.get()
        parents = None if run is None else run.route.parents[self.level]
        if run is None or parents is None:
            return None
        stream, tensor = next(iter(tensor_arguments(args, kwargs).items()))
        return replace_arguments(args, kwargs, {stream: _gather(tensor, parents, run.route.width(self.level - 1))})


def _gather(folded: Tensor, parents: tuple[int, ...], groups: int) -> Tensor:
    parts = split_groups(folded, groups)
    return torch.cat([parts[parent] for parent in parents])


class FoldSideInputs(OwnHook):
    """Before a module called with a batch-carrying side input: repeat it for every group of the level."""

    def __init__(self, side: SideInput) -> None:
        self.side = side

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = current_run.get()
        if run is None:
            return None
        level, rows = self.side.level, self.side.rows
        groups, above = run.route.width(level), run.route.width(level - 1)
        changed = {}
        for key, value in tensor_arguments(args, kwargs).items():
            if key not in rows or value.shape[0] == groups * rows[key] * run.batch:
                continue  # inside a block the side input arrives folded, from the block's own arguments
            if value.shape[0] == rows[key] * run.batch:
                changed[key] = value.repeat(groups, *[1] * (value.ndim - 1))
            elif value.shape[0] == above * rows[key] * run.batch:
                changed[key] = _gather(value, run.route.parents[level] or tuple(range(groups)), above)
        return replace_arguments(args, kwargs, changed)


class Adapt(OwnHook):
    """After a site: add every active group's update."""

    def __init__(self, owner: BranchedBackbone, site: Site) -> None:
        self.owner, self.site = (owner,), site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        run, owner = current_run.get(), self.owner[0]
        if run is None or owner.adapter is None:
            return None
        level = self.site.level
        modules = [owner.node_adapters(level, group)[self.site.key] for group in run.route.groups[level]]
        inputs = next(iter(tensor_arguments(args, kwargs).values()))
        frozen = output[0] if isinstance(output, tuple) else output
        alone = self._is_first_to_see_it(module)
        if not alone and self._adds_in_place():
            frozen = frozen.clone()
        nodes = Nodes(modules, run.reach, level, FrozenCall.of(module, inputs, frozen) if alone else None)
        with keeping_source_of(inputs):
            adapted = owner.adapter.apply(self.site, nodes, inputs, frozen)
        return (adapted, *output[1:]) if isinstance(output, tuple) else adapted

    def _adds_in_place(self) -> bool:
        """Whether adapters write into the output that they are given: without gradients, but at whole blocks."""
        return not (torch.is_grad_enabled() or torch.compiler.is_compiling() or self.site.kind == "block")

    def _is_first_to_see_it(self, module: nn.Module) -> bool:
        """Whether nothing else can hold what the layer returned."""
        first = next(iter(module._forward_hooks.values()), None)
        plain = type(module).forward in (nn.Linear.forward, nn.Conv2d.forward) and "forward" not in vars(module)
        return first is self and not torch.nn.modules.module._global_forward_hooks and plain


class Tap(OwnHook):
    """After a level's last module: keep what the decoders read, and stop after the last level."""

    def __init__(self, stop: bool) -> None:
        self.stop = stop

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        run = current_run.get()
        if run is None:
            return
        run.taps.append(first_tensor(output))
        # An exporter's tracer loses its place among the modules when an exception passes them; what runs on until the
        # backbone's end is no part of the exported graph, since nothing reads it.
        if self.stop and not torch.compiler.is_exporting():
            raise StopForward
