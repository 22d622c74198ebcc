"""The nodes of a run's tree as plain data, for the drawing and for the table."""

from __future__ import annotations

from dataclasses import dataclass

from branchtune.planning.describe import depth_first, mean_affinity
from branchtune.report.page.run_data import RunData
from branchtune.tree import Node


@dataclass(frozen=True)
class TreeNode:
    """One group at one level.

    Attributes:
        node: which.
        parameters: of its adapters.
        macs: per image, backbone and adapters.
        share: of the MACs of backbone and adapters, stem and all nodes.
        affinity: mean over the pairs of its tasks, as text; empty without a pair.
    """

    node: Node
    parameters: int
    macs: int
    share: float
    affinity: str

    @property
    def tasks(self) -> str:
        return ", ".join(self.node.tasks)


def tree_nodes(run: RunData) -> list[TreeNode]:
    """Depth first: the order in which leaves stand below each other without crossings."""
    costs = {node.key: cost for node, cost in run.cost.nodes}
    affinity = run.affinity if run.affinity and set(run.affinity.tasks) >= set(run.tasks) else None
    return [
        TreeNode(
            node,
            costs[node.key].parameters,
            costs[node.key].macs,
            costs[node.key].macs / run.cost.macs,
            mean_affinity(affinity, node),
        )
        for node in depth_first(run.model.tree)
    ]
