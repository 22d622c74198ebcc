"""A plan in text: the tree with the predicted parameters and MACs of every node."""

from __future__ import annotations

from collections.abc import Iterator

from branchtune.adapters.adapter import Adapter
from branchtune.affinity.matrix import Affinity
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import tree_cost
from branchtune.tree import Node, TaskTree


def describe_plan(tree: TaskTree, affinity_or_spec: Affinity | BackboneSpec, adapter: Adapter | None) -> str:
    """The tree, one line per node, with adapter parameters and MACs per image, and totals without decoders.

    Args:
        affinity_or_spec: the backbone; an affinity also gives every group its mean corrected affinity.
        adapter: the adapter family, or None for a plain backbone.
    """
    affinity = affinity_or_spec if isinstance(affinity_or_spec, Affinity) else None
    spec = affinity_or_spec.spec if isinstance(affinity_or_spec, Affinity) else affinity_or_spec
    cost = tree_cost(spec, tree, adapter)
    of_node = dict(cost.nodes)
    rows = [("tree", "level", "affinity", "parameters", "MACs")]
    rows.append(("(stem)", "", "", "0", f"{cost.stem_macs:,}"))
    for line, node in zip(str(tree).splitlines(), depth_first(tree), strict=True):
        here = of_node[node]
        rows.append((line, str(node.level), mean_affinity(affinity, node), f"{here.parameters:,}", f"{here.macs:,}"))
    rows.append(("total", "", "", f"{cost.parameters:,}", f"{cost.macs:,}"))
    if affinity is None:
        rows = [(row[0], row[1], "", *row[3:]) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True) if w)])
        for row in rows
    ]
    lines.append(f"{cost.ratio:.3f} times the MACs of one backbone pass ({cost.backbone_macs:,})")
    return "\n".join(lines)


def depth_first(tree: TaskTree) -> Iterator[Node]:
    """The nodes in the order in which `str(tree)` draws them."""
    by_level = [[node for node in tree.nodes() if node.level == level] for level in range(tree.num_levels)]

    def below(node: Node) -> Iterator[Node]:
        yield node
        if node.level + 1 < tree.num_levels:
            for child, parent in zip(by_level[node.level + 1], tree.parents(node.level + 1), strict=True):
                if parent == node.index:
                    yield from below(child)

    for root in by_level[0]:
        yield from below(root)


def mean_affinity(affinity: Affinity | None, node: Node) -> str:
    """The mean corrected affinity over the pairs of the node's tasks at its level, as text; empty without a pair."""
    if affinity is None or len(node.tasks) < 2:
        return ""
    rows = [affinity.tasks.index(task) for task in node.tasks]
    matrix = affinity.corrected(node.level)[rows][:, rows]
    pairs = len(rows) * (len(rows) - 1)
    return f"{(matrix.sum() - matrix.trace()) / pairs:.2f}"
