"""Grow a tree of adapters on a frozen backbone by folding its branches into the batch.

At a level with G groups the activations are `[G * B, ...]`, group-major. The backbone's own code runs once on the
folded batch; hooks gather the children's rows where the tree forks, add each group's update at every site, and keep
what the decoders read at the end of a level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.arguments import replace_arguments, tensor_arguments
from branchtune.backbone.clone import OwnHook, clone_sharing_weights, keep_frozen_statistics
from branchtune.backbone.extras import extra_parameters
from branchtune.backbone.features import first_tensor, to_map
from branchtune.backbone.recorder import StopForward
from branchtune.backbone.spec import BackboneSpec, SideInput, Site
from branchtune.errors import UserError
from branchtune.folded import split_groups
from branchtune.images import check_images, explain
from branchtune.reach import Nodes, Reach
from branchtune.route import Route
from branchtune.tree import TaskTree


@dataclass
class _Run:
    """One call of the model: its route, batch size, and the features that its hooks have kept so far."""

    route: Route
    batch: int
    reach: Reach
    taps: list[Tensor] = field(default_factory=list)


# The run is an argument of the call, not state of the module, so that threads and nested calls do not disturb it.
_current_run: ContextVar[_Run | None] = ContextVar("branchtune_run", default=None)


class BranchedBackbone(nn.Module):
    """A frozen backbone with one adapter set per node of a tree; images -> each task's feature maps.

    Args:
        backbone: the user's module; its weights are shared and it is left as it was.
        spec: its traced description.
        tree: the task tree, with as many levels as the backbone.
        adapter: the adapter family, or None for a plain backbone with one group per level.
        extras: shared parts of the backbone to train as well, see `extra_parameters`.
        train_backbone: full fine-tuning: every weight trains (on a copy), BatchNorm included.

    Raises:
        UserError: the tree's number of levels is not the backbone's; a tree that forks without adapters; a spec
            of another backbone; gradient checkpointing switched on.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        tree: TaskTree,
        adapter: Adapter | None,
        extras: Sequence[str] = (),
        train_backbone: bool = False,
    ) -> None:
        super().__init__()
        if tree.num_levels != len(spec.levels):
            raise UserError(
                f"the tree has {tree.num_levels} levels, {spec.name} has {len(spec.levels)}: {spec.describe_levels()}"
            )
        if adapter is None and max(tree.group_counts) > 1:
            raise UserError("a tree that forks needs an adapter: without one all branches compute the same")
        _check_backbone(backbone, spec)
        self.spec, self.tree, self.adapter = spec, tree, adapter
        self.train_backbone = train_backbone
        self.extra_names = extra_parameters(backbone, spec, extras)
        self.trainable = set(spec.parameters) if train_backbone else self.extra_names
        self.frozen = clone_sharing_weights(backbone, self.trainable)
        self.sites: dict[str, Site] = {}
        self.adapters = nn.ModuleDict()
        if adapter is not None:
            self.sites = {site.name: site for site in adapter.select_sites(spec)}
            self._build_adapters(adapter)
        # Before the hooks below: the streams need what the frozen layers return.
        self.streams = None if adapter is None else adapter.streams(self.frozen, spec, tree.tasks)
        if self.streams is not None:
            if max(tree.group_counts) > 1:
                raise UserError(f"{type(adapter).__name__} gives every task a stream of its own: its tree cannot fork")
            self.adapters.update(self.streams.adapters)
        self._register_hooks()
        self.train()

    def _build_adapters(self, adapter: Adapter) -> None:
        for node in self.tree.nodes():
            here = [site for site in self.sites.values() if site.level == node.level]
            self.adapters[node.key] = nn.ModuleDict({site.key: adapter.build(site) for site in here})

    def node_adapters(self, level: int, index: int) -> nn.ModuleDict:
        """The adapter modules of one node, by site key."""
        key = f"{level}/{'+'.join(self.tree.levels[level][index])}"
        module = self.adapters[key]
        assert isinstance(module, nn.ModuleDict)
        return module

    def train(self, mode: bool = True) -> BranchedBackbone:
        super().train(mode)
        self._keep_frozen_statistics()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> BranchedBackbone:
        """Freeze everything, or let train again what the plan trains: adapters, extras or the whole backbone.

        What the plan freezes stays frozen, since the user's own backbone shares those weights.
        """
        self.adapters.requires_grad_(requires_grad)
        for name, parameter in self.frozen.named_parameters():
            parameter.requires_grad_(requires_grad and name in self.trainable)
        return self

    def _keep_frozen_statistics(self) -> None:
        if not self.train_backbone:
            keep_frozen_statistics(self.frozen)

    def forward(
        self, images: Tensor, tasks: Collection[str] | None = None, inputs: Mapping[str, Any] | None = None
    ) -> dict[str, list[Tensor]]:
        """Feature maps of every task at the end of every level.

        Args:
            images: `[B, 3, H, W]`.
            tasks: the tasks wanted; only the nodes on their paths are computed. Default: all.
            inputs: further keyword inputs of the backbone; tensors that carry the batch are folded with it.

        Returns:
            Per task a list of `[B, C_l, H_l, W_l]`, one for each level.

        Raises:
            UserError: images that the backbone cannot take, an unknown task, or none.
        """
        check_images(images, self.frozen)
        route = Route.of(self.tree, self.tree.tasks if tasks is None else tasks)
        run = _Run(route, images.shape[0], Reach(route.slot))
        self._keep_frozen_statistics()  # a caller may have called train() on the modules one by one
        if self.streams is None:
            taps, reach = self._run_hooked(images, run, inputs), run.reach
        else:
            with self.streams.keeping() as kept:
                self._run_hooked(images, run, inputs)
            own = {task: (index,) * self.tree.num_levels for index, task in enumerate(route.slot)}
            reach = Reach(own, trunk=run.reach)
            taps = self.streams.run(kept, list(own), self.adapters, reach)
        size = (images.shape[2], images.shape[3])
        batch = images.shape[0]
        for level, tap in zip(self.spec.levels, taps, strict=True):
            if self.streams is None and tap.shape[0] != route.width(level.index) * batch:
                raise UserError(
                    f"{self.spec.name} lost the branches before the end of level {level.index} ({level.end!r}): its "
                    "code reshapes with a batch size from before the fork; choose other levels"
                )
        maps = [to_map(tap, level.feature, size) for tap, level in zip(taps, self.spec.levels, strict=True)]
        split = [reach.split(folded, level) for level, folded in enumerate(maps)]
        return {task: [parts[task] for parts in split] for task in route.slot}

    def _run_hooked(self, images: Tensor, run: _Run, inputs: Mapping[str, Any] | None) -> list[Tensor]:
        token = _current_run.set(run)
        try:
            return self._run_backbone(images, run, dict(inputs or {}))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            explained = explain(error, images, self.frozen, self.spec)
            if explained is None:
                raise
            raise explained from error
        finally:
            _current_run.reset(token)

    def _run_backbone(self, images: Tensor, run: _Run, inputs: dict[str, Any]) -> list[Tensor]:
        if self.spec.feature_indices is not None:
            return self.frozen.forward_intermediates(  # type: ignore[operator]
                images, indices=list(self.spec.feature_indices), intermediates_only=True, norm=False, **inputs
            )
        entry: Any = getattr(self.frozen, "forward_features", self.frozen)
        with suppress(StopForward):
            entry(images, **inputs)
        if len(run.taps) != len(self.spec.levels):
            raise RuntimeError(f"{self.spec.name} did not reach the end of its last level")
        return run.taps

    def _register_hooks(self) -> None:
        modules = dict(self.frozen.named_modules())
        for side in self.spec.side_inputs:
            modules[side.module].register_forward_pre_hook(_FoldSideInputs(side), with_kwargs=True)
        for level in self.spec.levels:
            modules[level.start].register_forward_pre_hook(_Fork(level.index), with_kwargs=True)
        for name, site in self.sites.items():
            modules[name].register_forward_hook(_Adapt(self, site), with_kwargs=True)
        if self.spec.feature_indices is None:
            for level in self.spec.levels:
                last = level.index == len(self.spec.levels) - 1
                modules[level.end].register_forward_hook(_Tap(stop=last))


class _Fork(OwnHook):
    """Before a level's first module: gather each child's rows from its parent's."""

    def __init__(self, level: int) -> None:
        self.level = level

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = _current_run.get()
        parents = None if run is None else run.route.parents[self.level]
        if run is None or parents is None:
            return None
        stream, tensor = next(iter(tensor_arguments(args, kwargs).items()))
        return replace_arguments(args, kwargs, {stream: _gather(tensor, parents, run.route.width(self.level - 1))})


def _gather(folded: Tensor, parents: tuple[int, ...], groups: int) -> Tensor:
    parts = split_groups(folded, groups)
    return torch.cat([parts[parent] for parent in parents])


class _FoldSideInputs(OwnHook):
    """Before a module called with a batch-carrying side input: repeat it for every group of the level."""

    def __init__(self, side: SideInput) -> None:
        self.side = side

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        run = _current_run.get()
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


class _Adapt(OwnHook):
    """After a site: add every active group's update."""

    def __init__(self, owner: BranchedBackbone, site: Site) -> None:
        self.owner, self.site = (owner,), site

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        run, owner = _current_run.get(), self.owner[0]
        if run is None or owner.adapter is None:
            return None
        level = self.site.level
        modules = [owner.node_adapters(level, group)[self.site.key] for group in run.route.groups[level]]
        nodes = Nodes(modules, run.reach, level)
        inputs = next(iter(tensor_arguments(args, kwargs).values()))
        if isinstance(output, tuple):
            return (owner.adapter.apply(self.site, nodes, inputs, output[0]), *output[1:])
        return owner.adapter.apply(self.site, nodes, inputs, output)


class _Tap(OwnHook):
    """After a level's last module: keep what the decoders read, and stop after the last level."""

    def __init__(self, stop: bool) -> None:
        self.stop = stop

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        run = _current_run.get()
        if run is None:
            return
        run.taps.append(first_tensor(output))
        # An exporter's tracer loses its place among the modules when an exception passes them; what runs on until the
        # backbone's end is no part of the exported graph, since nothing reads it.
        if self.stop and not torch.compiler.is_exporting():
            raise StopForward


def _check_backbone(backbone: nn.Module, spec: BackboneSpec) -> None:
    names = {name for name, _ in backbone.named_modules()}
    for name in (name for level in spec.levels for name in (level.start, level.end)):
        if name not in names:
            raise UserError(
                f"{type(backbone).__name__} has no module {name!r}: the spec was traced from another backbone, "
                f"{spec.name}"
            )
    for module in backbone.modules():
        for flag in ("grad_checkpointing", "gradient_checkpointing"):
            if getattr(module, flag, False) is True:
                raise UserError(
                    f"{spec.name} has gradient checkpointing switched on, whose recomputation would run without the "
                    "adapters: switch it off (backbone.set_grad_checkpointing(False))"
                )
