"""`MergedBackbone`: a branched backbone, some of whose levels hold merged weights instead of adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

from branchtune.backbone.clone import clone_sharing_weights, drop_own_hooks
from branchtune.branching import BranchedBackbone
from branchtune.merging.per_group import PerGroup
from branchtune.merging.units import Unit
from branchtune.merging.weights import set_merged_weight
from branchtune.snapshot import BackboneSnapshot


class MergedBackbone(BackboneSnapshot):
    """A copy of a branched backbone, for inference.

    At a merged level with one group the adapted layers hold the merged weights; at one with several groups each of
    the level's units runs once for every active group. Elsewhere the batch stays folded and the adapters live.

    Args:
        source: left as it was; frozen weights that do not change are shared with it, what it trains is copied.
        extras: names as the source was given them.
        merged: per merged level its units; none are needed where the level has one group.
    """

    kind, verb = "merged", "merge"

    def __init__(self, source: BranchedBackbone, extras: Sequence[str], merged: Mapping[int, Sequence[Unit]]) -> None:
        super().__init__(source, extras)
        if merged:
            self._merge(merged)
            self.rest()

    def _merge(self, merged: Mapping[int, Sequence[Unit]]) -> None:
        counts = self.tree.group_counts
        # One structural copy of the backbone per group; the levels, whose sites are disjoint, take their units from it.
        copies = [clone_sharing_weights(self.frozen) for _ in range(max(counts[level] for level in merged))]
        for level, units in merged.items():
            models = [self.frozen] if counts[level] == 1 else copies[: counts[level]]
            for group, model in enumerate(models):
                self._set_weights(model, level, group)
            for unit in units:
                self._replace(unit, level, models)
        for node in self.tree.nodes():
            if node.level in merged:
                del self.adapters[node.key]
        self.sites = {name: site for name, site in self.sites.items() if site.level not in merged}
        for module in self.frozen.modules():
            drop_own_hooks(module)
        self._register_hooks()

    def _set_weights(self, model: nn.Module, level: int, group: int) -> None:
        assert self.adapter is not None
        nodes = self.node_adapters(level, group)
        for name, site in self.sites.items():
            if site.level == level:
                set_merged_weight(model.get_submodule(name), self.adapter, site, nodes[site.key])

    def _replace(self, unit: Unit, level: int, copies: Sequence[nn.Module]) -> None:
        """The first module of the unit runs all of it; the others hand on what they are given."""
        first, *others = [self.frozen.get_submodule(name) for name in unit]
        runs: list[nn.Module] = [
            nn.Sequential(*map(model.get_submodule, unit)) if others else model.get_submodule(unit[0])
            for model in copies
        ]
        sides = next((side.rows for side in self.spec.side_inputs if side.module == unit[0]), {})
        new: dict[nn.Module, nn.Module] = {first: PerGroup(level, runs, sides)}
        new |= {module: nn.Identity() for module in others}
        for parent in list(self.frozen.modules()):
            for name, child in list(parent._modules.items()):  # every name, where a module has several
                if child is not None and child in new:
                    parent.register_module(name, new[child])
