"""What `plan` ends with, for people and for programs."""

from __future__ import annotations

from typing import Any

from branchtune.adapters.adapter import Adapter
from branchtune.affinity.matrix import Affinity
from branchtune.cost import tree_cost
from branchtune.planning.describe import PlanRow, plan_rows
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import count
from branchtune.tables.outcome import Outcome
from branchtune.tree import TaskTree


def plan_outcome(tree: TaskTree, affinity: Affinity, adapter: Adapter | None) -> Outcome:
    """The planned tree with what every node costs; a record is a node, the stem, or the tasks' own streams."""
    cost = tree_cost(affinity.spec, tree, adapter)
    rows = plan_rows(tree, cost, affinity)
    heading = ["level", "group", "affinity", "parameters", "MACs", "share of MACs"]
    body = [_cells(row) for row in rows] + [["", "total", "", f"{cost.parameters:,}", count(cost.macs), "100.0%"]]
    note = f"{cost.ratio:.3f} times the MACs of one backbone pass ({cost.backbone_macs:,})"
    content = {
        "format": 1,
        "backbone": affinity.spec.name,
        "tree": tree.to_json(),
        "nodes": [_record(row) for row in rows],
        "parameters": cost.parameters,
        "macs": cost.macs,
        "backbone_macs": cost.backbone_macs,
        "ratio": cost.ratio,
    }
    return Outcome([Cells("", heading, body, labels=2)], [note], [_record(row) for row in rows], content)


def _cells(row: PlanRow) -> list[str]:
    mean = "" if row.affinity is None else f"{row.affinity:.2f}"
    level = "" if row.node is None else str(row.node.level)
    return [level, row.title, mean, f"{row.parameters:,}", count(row.macs), f"{row.share:.1%}"]


def _record(row: PlanRow) -> dict[str, Any]:
    return {
        "level": row.node.level if row.node else None,
        "group": row.title,
        "affinity": row.affinity,
        "parameters": row.parameters,
        "macs": row.macs,
        "macs_share": row.share,
    }
