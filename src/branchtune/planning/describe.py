"""A plan in text: the tree with the predicted parameters and MACs of every node."""

from __future__ import annotations

from dataclasses import dataclass

from branchtune.adapters.adapter import Adapter
from branchtune.affinity.matrix import Affinity
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import TreeCost, tree_cost
from branchtune.planning.drawing import ASCII, LINES, draw_tree
from branchtune.tables.numbers import count
from branchtune.tree import Node, TaskTree

_GAP = "  "


@dataclass(frozen=True)
class PlanRow:
    """What one node of a planned tree costs, or the stem, or what the tasks' own streams add.

    Attributes:
        title: the node's tasks, "image" for the stem.
        node: None for the stem and the streams.
        parameters: trainable adapter parameters.
        macs: multiply-accumulates per image.
        share: of all MACs of the tree, without decoders.
        affinity: mean corrected affinity of the node's pairs of tasks at its level; None where unknown.
    """

    title: str
    node: Node | None
    parameters: int
    macs: int
    share: float
    affinity: float | None = None


def plan_rows(tree: TaskTree, cost: TreeCost, affinity: Affinity | None) -> list[PlanRow]:
    """The stem, every node level by level, and the streams where the adapter family has such; they add up to `cost`."""
    rows = [PlanRow("image", None, 0, cost.stem_macs, cost.stem_macs / cost.macs)]
    for node, here in cost.nodes:
        title, mean = " ".join(node.tasks), _mean_affinity(affinity, node)
        rows.append(PlanRow(title, node, here.parameters, here.macs, here.macs / cost.macs, mean))
    parameters, macs = sum(s.parameters for s in cost.streams), sum(s.macs for s in cost.streams)
    return [*rows, PlanRow("tasks' own streams", None, parameters, macs, macs / cost.macs)] if parameters else rows


def describe_plan(
    tree: TaskTree,
    affinity_or_spec: Affinity | BackboneSpec,
    adapter: Adapter | None,
    *,
    width: int = 80,
    ascii_only: bool = False,
) -> str:
    """The tree drawn from the image on, a line per node, and what it costs without decoders.

    Beside every node: its level, its adapter's parameters, its MACs per image and their share of all.

    Args:
        tree: the planned tree.
        affinity_or_spec: the backbone; an affinity also gives every group its mean corrected affinity.
        adapter: the adapter family, or None for a plain backbone.
        width: of a line in characters.
        ascii_only: draw without box characters.
    """
    affinity = affinity_or_spec if isinstance(affinity_or_spec, Affinity) else None
    spec = affinity_or_spec.spec if isinstance(affinity_or_spec, Affinity) else affinity_or_spec
    cost = tree_cost(spec, tree, adapter)
    rows = plan_rows(tree, cost, affinity)
    heading = ("level", *(["affinity"] if affinity else []), "parameters", "MACs", "share")
    numbers = {row.title if row.node is None else row.node: _numbers(row, affinity is not None) for row in rows}
    total = ("", *([""] if affinity else []), f"{cost.parameters:,}", count(cost.macs), "100.0%")
    widths = [max(map(len, column)) for column in zip(heading, total, *numbers.values(), strict=True)]
    free = width - sum(len(_GAP) + w for w in widths)
    drawn = [
        (lines, numbers["image" if node is None else node])
        for node, lines in draw_tree(tree, free, ASCII if ascii_only else LINES)
    ]
    drawn += [([row.title], numbers[row.title]) for row in rows[1:] if row.node is None]
    table = [(["tree"], heading), *drawn, (["total"], total)]
    longest = max(len(line) for lines, _ in table for line in lines)
    text = []
    for (first, *others), cells in table:
        right = _GAP.join(cell.rjust(w) for cell, w in zip(cells, widths, strict=True))
        text += [f"{first.ljust(longest)}{_GAP}{right}", *others]
    text.append(f"{cost.ratio:.3f} times the MACs of one backbone pass ({cost.backbone_macs:,})")
    return "\n".join(text)


def _numbers(row: PlanRow, with_affinity: bool) -> tuple[str, ...]:
    mean = "" if row.affinity is None else f"{row.affinity:.2f}"
    level = "" if row.node is None else str(row.node.level)
    return level, *([mean] if with_affinity else []), f"{row.parameters:,}", count(row.macs), f"{row.share:.1%}"


def _mean_affinity(affinity: Affinity | None, node: Node) -> float | None:
    """Over the pairs of the node's tasks, at its level."""
    if affinity is None or len(node.tasks) < 2:
        return None
    rows = [affinity.tasks.index(task) for task in node.tasks]
    matrix = affinity.corrected(node.level)[rows][:, rows]
    pairs = len(rows) * (len(rows) - 1)
    return float((matrix.sum() - matrix.trace()) / pairs)
