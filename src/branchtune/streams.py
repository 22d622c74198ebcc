"""The tasks' streams of a comb: the last block of every level once more, for all tasks at once, on what is theirs.

The main pass keeps what the last block of a level was given and what its frozen layers returned. A copy of the block
whose attention and MLP layers read these instead of computing them then runs on what the group of each task was given,
folded: the block's own code does windows, shortcuts, norms and non-linearities, and only the tasks' adapters multiply.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.adapters.comb import TASK_LAYERS, Comb
from branchtune.adapters.lora_layers import LoRALinear
from branchtune.backbone.arguments import tensor_arguments
from branchtune.backbone.clone import OwnHook
from branchtune.backbone.features import first_tensor
from branchtune.backbone.spec import BackboneSpec, Site
from branchtune.errors import UserError
from branchtune.folded import split_groups
from branchtune.reach import Nodes, Reach
from branchtune.recompute_inputs import keeping_source_of
from branchtune.route import Route
from branchtune.scoped import Scoped

# Per call, as the run of the main pass: what its hooks kept, and the adapters that the streams read while they run.
_kept: Scoped[dict[str, Any]] = Scoped("branchtune_streams")


@dataclass(frozen=True)
class _Block:
    """A level's last block, its copy for the streams, and the module between it and the end of the level."""

    name: str
    source: nn.Module
    replay: nn.Module
    after: nn.Module | None

    def set_mode(self) -> None:
        """The mode of the block for what the copy has of its own; the rest it shares with the block."""
        replay: Any = self.replay
        for module in (replay, replay.attn, replay.mlp, replay.mlp.fc1, replay.mlp.fc2):
            module.training = self.source.training


class TaskStreams:
    """The streams of every level.

    Args:
        frozen: the backbone's copy, before any other hook is registered on it.
        spec: its description.
        comb: the adapter family.
        tasks: names.

    Attributes:
        adapters: the tasks' parameters, by `level/task/stream`.
        users: the task of each, by the same names.
    """

    def __init__(self, frozen: nn.Module, spec: BackboneSpec, comb: Comb, tasks: Sequence[str]) -> None:
        if spec.feature_indices is not None:
            raise UserError(f"Comb cannot read the features of {spec.name}, which are no outputs of its blocks")
        self.spec, self.comb = spec, comb
        self.adapters: dict[str, nn.ModuleDict] = {}
        self.users: dict[str, tuple[str, ...]] = {}
        self._blocks: list[_Block] = []
        modules = dict(frozen.named_modules())
        for level in spec.levels:
            sites = comb.task_sites(spec, level.index)
            for task in tasks:
                parameters = {site.key: LoRALinear(site, comb.r_task) for site in sites}
                key = f"{level.index}/{task}/stream"
                self.adapters[key], self.users[key] = nn.ModuleDict(parameters), (task,)
            name = comb.last_block(spec, level.index)
            _check_block(modules[name], name)
            after = None if comb.ends_level(spec, level.index) else modules[level.end]
            self._blocks.append(_Block(name, modules[name], _replay(modules[name], name), after))
            for site in sites:
                modules[site.name].register_forward_hook(_KeepLayer(site.name))
            for site in comb.adapted_merging_sites(spec, level.index):
                modules[site.name].register_forward_hook(_AdaptMerging(comb, site))

    def watch_blocks(self) -> None:
        """To be called after the hooks that fork: where a level is one block, its input is what they make of it."""
        for block in self._blocks:
            block.source.register_forward_pre_hook(_Keep(block.name), with_kwargs=True)

    @contextmanager
    def keeping(self) -> Iterator[dict[str, Any]]:
        """Around the main pass: what the streams will need."""
        kept: dict[str, Any] = {}
        outer = _kept.get()
        _kept.set(kept)
        try:
            yield kept
        finally:
            _kept.set(outer)

    def run(
        self,
        kept: dict[str, Any],
        route: Route,
        adapters: nn.ModuleDict,
        reach: Reach,
        node_adapters: Callable[[int, int], nn.ModuleDict],
    ) -> list[Tensor]:
        """The raw output of every level for all tasks of the route, `[T * B, ...]`, task-major.

        Args:
            kept: in the main pass.
            route: of that pass.
            adapters: all of the model, by key.
            reach: of the streams, one group per task.
            node_adapters: those of a group, by level and number of the group in the tree.
        """
        outputs = []
        tasks = list(route.slot)
        for level, block in zip(self.spec.levels, self._blocks, strict=True):
            own = [adapters[f"{level.index}/{task}/stream"] for task in tasks]
            groups = [route.groups[level.index][route.slot[task][level.index]] for task in tasks]
            shared = [node_adapters(level.index, group) for group in groups]
            kept["nodes"] = {
                site.name: (site, Nodes([node[site.key] for node in nodes], reach, level.index))  # type: ignore[index]
                for nodes, sites in (
                    (own, self.comb.task_sites(self.spec, level.index)),
                    (shared, self.comb.adapted_merging_sites(self.spec, level.index)),
                )
                for site in sites
            }
            kept["fold"] = _Fold([route.slot[task][level.index] for task in tasks], route.width(level.index))
            kept["scale"], kept["dropout"] = self.comb.task_alpha / self.comb.r_task, self.comb.lora_dropout
            args, kwargs = kept[block.name]
            block.set_mode()
            outer = _kept.get()
            _kept.set(kept)
            try:
                stream = first_tensor(block.replay(kept["fold"](args[0]), *args[1:], **kwargs))
                outputs.append(stream if block.after is None else first_tensor(block.after(stream)))
            finally:
                _kept.set(outer)
        return outputs


@dataclass(frozen=True)
class _Fold:
    """What the groups have, `[G * n, ...]`, once for every task, `[T * n, ...]`.

    Attributes:
        slots: the position of every task's group.
        groups: G.
    """

    slots: Sequence[int]
    groups: int

    def __call__(self, tensor: Tensor) -> Tensor:
        parts = split_groups(tensor, self.groups)
        return torch.cat([parts[slot] for slot in self.slots])


def _replay(block: nn.Module, name: str) -> nn.Module:
    """A copy of the block whose attention and MLP layers are the tasks' share of them; all other modules are the same.

    The modules, not their parameters alone: these are replaced where weights are assigned or swapped for a call.
    """
    replay: Any = _with_own_children(block)
    replay.mlp = _with_own_children(replay.mlp)
    replay.attn = _Replayed(f"{name}.attn.proj")
    replay.mlp.fc1 = _Replayed(f"{name}.mlp.fc1")
    replay.mlp.fc2 = _Replayed(f"{name}.mlp.fc2")
    return replay


def _with_own_children(module: nn.Module) -> Any:
    """A module that shares everything with `module`, but gets neither its later children nor its later hooks."""
    shared = copy.copy(module)
    for name, value in vars(module).items():
        if name == "_modules" or (name.startswith("_") and "hooks" in name and isinstance(value, dict)):
            vars(shared)[name] = copy.copy(value)
        elif isinstance(value, MethodType) and value.__self__ is module:  # a forward of the user's, on this one module
            vars(shared)[name] = MethodType(value.__func__, shared)
    return shared


class _Replayed(nn.Module):
    """Returns the frozen layer's output of the main pass plus each task's update, `[T * n, ...]`."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.site = site

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        kept = _kept.get()
        assert kept is not None
        site, nodes = kept["nodes"][self.site]
        inputs, output = kept[self.site]
        # The attention was computed once, for all tasks; the layers after it see what is the task's own.
        own = kept["fold"](inputs) if self.site.endswith(".attn.proj") else x
        own = nn.functional.dropout(own, kept["dropout"], self.training)
        with keeping_source_of(own):  # of no tensor that dropout made
            return LoRALinear.adapt(site, nodes, own, kept["fold"](output), kept["scale"])


class _Keep(OwnHook):
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        kept = _kept.get()
        if kept is not None and "nodes" not in kept:
            kept[self.name] = (args, dict(kwargs))


class _KeepLayer(OwnHook):
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept = _kept.get()
        if kept is not None and "nodes" not in kept:
            kept[self.name] = (next(iter(tensor_arguments(args, {}).values())), output)


class _AdaptMerging(OwnHook):
    """After a layer that the streams pass on their way to the end of a level: each task's group's update."""

    def __init__(self, comb: Comb, site: Site) -> None:
        self.comb, self.site = comb, site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
        kept = _kept.get()
        if kept is None or "nodes" not in kept:  # the main pass
            return None
        site, nodes = kept["nodes"][self.site.name]
        inputs = next(iter(tensor_arguments(args, {}).values()))
        return self.comb.apply(site, nodes, inputs, output)


def _check_block(block: nn.Module, name: str) -> None:
    """Only what is replayed, norms and non-linearities may be in the block: anything else would be paid per task."""
    for child, module in block.named_modules():
        allowed = child.startswith("attn.") or child in TASK_LAYERS
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d) and not allowed:
            raise UserError(
                f"Comb needs blocks of attention and a plain MLP: {name} also has {child!r}, which it does not know"
            )
