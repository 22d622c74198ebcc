"""Grow a tree of adapters on a frozen backbone by folding its branches into the batch.

At a level with G groups the activations are `[G * B, ...]`, group-major. The backbone's own code runs once on the
folded batch; hooks gather the children's rows where the tree forks, add each group's update at every site, and keep
what the decoders read at the end of a level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from torch import Tensor, nn

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.check import check_traced
from branchtune.backbone.clone import clone_sharing_weights, keep_frozen_statistics
from branchtune.backbone.extras import extra_parameters
from branchtune.backbone.features import to_map
from branchtune.backbone.recorder import StopForward
from branchtune.backbone.spec import BackboneSpec, Site
from branchtune.errors import UserError
from branchtune.hooks import Adapt, FoldSideInputs, Fork, Run, Tap, current_run
from branchtune.images import check_images, explain
from branchtune.reach import Reach
from branchtune.recompute import recompute_blocks
from branchtune.recompute_inputs import note_sources, sources_noted
from branchtune.route import Route
from branchtune.tree import TaskTree


class BranchedBackbone(nn.Module):
    """A frozen backbone with one adapter set per node of a tree; images -> each task's feature maps.

    Args:
        backbone: the user's module; its weights are shared and it is left as it was.
        spec: its traced description.
        tree: the task tree, with as many levels as the backbone.
        adapter: the adapter family, or None for a plain backbone with one group per level.
        extras: shared parts of the backbone to train as well, see `extra_parameters`.
        train_backbone: full fine-tuning: every weight trains (on a copy), BatchNorm included.
        train_tasks: the tasks that train, default all. A node trains if all its tasks are among them, extras and
            backbone if all tasks are: no other task's features move.
        checkpoint_levels: levels whose blocks run again in the backward pass, see `recompute_blocks`.

    Raises:
        UserError: the tree's number of levels is not the backbone's; a tree that forks without adapters; a spec
            of another backbone; the backbone's own gradient checkpointing switched on, or levels that cannot be
            checkpointed.
    """

    def __init__(
        self,
        backbone: nn.Module,
        spec: BackboneSpec,
        tree: TaskTree,
        adapter: Adapter | None,
        extras: Sequence[str] = (),
        train_backbone: bool = False,
        train_tasks: Collection[str] | None = None,
        checkpoint_levels: bool | Sequence[int] = False,
    ) -> None:
        super().__init__()
        if tree.num_levels != len(spec.levels):
            raise UserError(
                f"the tree has {tree.num_levels} levels, {spec.name} has {len(spec.levels)}: {spec.describe_levels()}"
            )
        if adapter is None and max(tree.group_counts) > 1:
            raise UserError("a tree that forks needs an adapter: without one all branches compute the same")
        check_traced(backbone, spec)
        self.spec, self.tree, self.adapter = spec, tree, adapter
        self.train_backbone = train_backbone
        self.extra_names = extra_parameters(backbone, spec, extras)
        own = set(spec.parameters) if train_backbone else self.extra_names
        self.train_tasks = frozenset(tree.tasks if train_tasks is None else train_tasks)
        self.trainable = own if self._trains(tree.tasks) else set()
        self.frozen = clone_sharing_weights(backbone, own)
        self.sites: dict[str, Site] = {}
        self.adapters = nn.ModuleDict()
        # The tasks that use an adapter set, by its key.
        self.users = {node.key: node.tasks for node in tree.nodes()} if adapter is not None else {}
        if adapter is not None:
            self.sites = {site.name: site for site in adapter.select_sites(spec)}
            self._build_adapters(adapter)
        # Before the hooks below: the streams need what the frozen layers return.
        self.streams = None if adapter is None else adapter.streams(self.frozen, spec, tree.tasks)
        if self.streams is not None:
            self.adapters.update(self.streams.adapters)
            self.users |= self.streams.users
        for key in (key for key, users in self.users.items() if not self._trains(users)):
            self.adapters[key].requires_grad_(False)
        for name in own - self.trainable:
            self.frozen.get_parameter(name).requires_grad_(False)
        self._register_hooks()
        if self.streams is not None:
            self.streams.watch_blocks()
        # After the streams, whose copies of blocks run outside of the blocks.
        self.checkpoint_levels = recompute_blocks(self.frozen, spec, checkpoint_levels, train_backbone)
        self.train()

    def _trains(self, users: Collection[str]) -> bool:
        """Whether the plan trains what these tasks use."""
        return self.train_tasks.issuperset(users)

    def _build_adapters(self, adapter: Adapter) -> None:
        for node in self.tree.nodes():
            here = [site for site in self.sites.values() if site.level == node.level]
            self.adapters[node.key] = nn.ModuleDict({site.key: adapter.build(site) for site in here})

    def node_adapters(self, level: int, index: int) -> nn.ModuleDict:
        """The adapter modules of one node, by site key."""
        module = self.adapters[f"{level}/{'+'.join(self.tree.levels[level][index])}"]
        assert isinstance(module, nn.ModuleDict)
        return module

    def train(self, mode: bool = True) -> BranchedBackbone:
        super().train(mode)
        self._keep_frozen_statistics()
        return self

    def requires_grad_(self, requires_grad: bool = True) -> BranchedBackbone:
        """Freeze everything, or let train again what the plan trains of adapters, extras or the whole backbone.

        What the plan freezes stays frozen, since the user's own backbone shares those weights.
        """
        for key, users in self.users.items():
            self.adapters[key].requires_grad_(requires_grad and self._trains(users))
        for name, parameter in self.frozen.named_parameters():
            parameter.requires_grad_(requires_grad and name in self.trainable)
        return self

    def _keep_frozen_statistics(self) -> None:
        if not (self.train_backbone and self._trains(self.tree.tasks)):
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
        run = Run(route, images.shape[0], Reach(route.slot))
        self._keep_frozen_statistics()  # a caller may have called train() on the modules one by one
        with sources_noted(True):
            if self.streams is None:
                taps, reach = self._run_hooked(images, run, inputs), run.reach
            else:
                with self.streams.keeping() as kept:
                    self._run_hooked(images, run, inputs)
                own = {task: (index,) * self.tree.num_levels for index, task in enumerate(route.slot)}
                reach = Reach(own, trunk=run.reach)
                taps = self.streams.run(kept, route, self.adapters, reach, self.node_adapters)
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

    def _run_hooked(self, images: Tensor, run: Run, inputs: Mapping[str, Any] | None) -> list[Tensor]:
        outer = current_run.get()
        current_run.set(run)
        try:
            return self._run_backbone(images, run, dict(inputs or {}))
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
            explained = explain(error, images, self.frozen, self.spec)
            if explained is None:
                raise
            raise explained from error
        finally:
            current_run.set(outer)

    def _run_backbone(self, images: Tensor, run: Run, inputs: dict[str, Any]) -> list[Tensor]:
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
        if self.sites:
            note_sources(self.frozen)
        for side in self.spec.side_inputs:
            if side.module in modules:  # not where a merged level runs once per group
                modules[side.module].register_forward_pre_hook(FoldSideInputs(side), with_kwargs=True)
        for level in self.spec.levels:
            modules[level.start].register_forward_pre_hook(Fork(level.index), with_kwargs=True)
        for name, site in self.sites.items():
            modules[name].register_forward_hook(Adapt(self, site), with_kwargs=True)
        if self.spec.feature_indices is None:
            for level in self.spec.levels:
                last = level.index == len(self.spec.levels) - 1
                modules[level.end].register_forward_hook(Tap(stop=last))
