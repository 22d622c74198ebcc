"""The nodes of a run's tree as plain data, for the drawing and for the table."""

from __future__ import annotations

from dataclasses import dataclass

from branchtune.planning.describe import PlanRow, plan_rows
from branchtune.planning.drawing import depth_first
from branchtune.report.page.run_data import RunData
from branchtune.tables.numbers import rounded
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
    affinity = run.affinity if run.affinity and set(run.affinity.tasks) >= set(run.tasks) else None
    rows = {row.node: row for row in plan_rows(run.model.tree, run.cost, affinity)}
    return [_tree_node(node, rows[node]) for node in depth_first(run.model.tree)]


def _tree_node(node: Node, row: PlanRow) -> TreeNode:
    return TreeNode(node, row.parameters, row.macs, row.share, _written(row.affinity))


def _written(affinity: float | None) -> str:
    return "" if affinity is None else f"{rounded(affinity):.2f}"
