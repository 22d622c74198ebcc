"""What a tree costs on a backbone: trainable parameters and multiply-accumulates per node, before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.spec import BackboneSpec
from branchtune.tree import Node, TaskTree


@dataclass(frozen=True)
class LevelCost:
    """The cost of one group at one level, per image.

    Attributes:
        parameters: trainable adapter parameters.
        frozen_macs: multiply-accumulates of the backbone's own operations.
        adapter_macs: those that the adapter adds.
    """

    parameters: int
    frozen_macs: int
    adapter_macs: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates of both."""
        return self.frozen_macs + self.adapter_macs


@dataclass(frozen=True)
class TreeCost:
    """The cost of a tree, without decoders, which do not depend on it.

    Attributes:
        nodes: every node with its cost.
        stem_macs: what no branch repeats, see `BackboneSpec`.
        backbone_macs: one plain backbone pass, the unit of `ratio`.
        streams: what the tasks' own streams add at each level, for adapter families that have such.
    """

    nodes: tuple[tuple[Node, LevelCost], ...]
    stem_macs: int
    backbone_macs: int
    streams: tuple[LevelCost, ...] = ()

    @property
    def parameters(self) -> int:
        """Trainable adapter parameters."""
        return sum(cost.parameters for cost in self._parts())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of backbone and adapters per image."""
        return self.stem_macs + sum(cost.macs for cost in self._parts())

    @property
    def ratio(self) -> float:
        """`macs` as a multiple of one plain backbone pass: what `budget` bounds."""
        return self.macs / self.backbone_macs

    def _parts(self) -> list[LevelCost]:
        return [*(cost for _, cost in self.nodes), *self.streams]


def level_costs(spec: BackboneSpec, adapter: Adapter | None) -> tuple[LevelCost, ...]:
    """The cost of one group at each level."""
    sites = () if adapter is None else adapter.select_sites(spec)
    costs = []
    for level in spec.levels:
        here = [site for site in sites if site.level == level.index]
        assert adapter is not None or not here
        parameters = sum(adapter.num_parameters(site) for site in here) if adapter else 0
        macs = sum(adapter.macs(site) for site in here) if adapter else 0
        costs.append(LevelCost(parameters, level.macs, macs))
    return tuple(costs)


def tree_cost(spec: BackboneSpec, tree: TaskTree, adapter: Adapter | None) -> TreeCost:
    """The predicted cost of a tree, without decoders; the built model matches it exactly.

    Args:
        spec: the traced backbone.
        tree: whose nodes are counted.
        adapter: what each of them trains; None for a plain backbone.
    """
    costs = level_costs(spec, adapter)
    nodes = tuple((node, costs[node.level]) for node in tree.nodes())
    streams = () if adapter is None else stream_costs(spec, adapter, len(tree.tasks))
    return TreeCost(nodes, spec.stem_macs, spec.macs, streams)


def stream_costs(spec: BackboneSpec, adapter: Adapter, tasks: int) -> tuple[LevelCost, ...]:
    """What the streams of that many tasks add at each level, whatever their tree."""
    return tuple(
        LevelCost(
            tasks * adapter.stream_parameters(spec, level.index), 0, tasks * adapter.stream_macs(spec, level.index)
        )
        for level in spec.levels
    )
