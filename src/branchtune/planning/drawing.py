"""A tree drawn in text: a line per node, forks indented."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from branchtune.tree import Node, TaskTree

_LEAST = 10  # characters that the names of a node get however deep it lies


@dataclass(frozen=True)
class Strokes:
    """What a tree is drawn with; `fork`, `last`, `line` and `blank` are two characters wide."""

    node: str
    fork: str
    last: str
    line: str
    blank: str = "  "


LINES = Strokes("● ", "├─", "└─", "│ ")
ASCII = Strokes("o ", "|-", "`-", "| ")


def draw_tree(tree: TaskTree, width: int, strokes: Strokes) -> Iterator[tuple[Node | None, list[str]]]:
    """Every node with its lines, first the stem (None), each group above those it forks into.

    A group is named by its tasks, and by "(same)" where it is that of the level before. A level without a fork is not
    indented, so that the depth of the drawing is that of the forks.

    Args:
        width: at most so many characters per line, unless a name has less than ten for itself.
        strokes: to draw with.
    """

    def draw(node: Node | None, label: str, first: str, rest: str) -> Iterator[tuple[Node | None, list[str]]]:
        children = _children(tree, node)
        under = rest + (strokes.line if children else strokes.blank)
        free = max(_LEAST, width - len(under))
        first_line, *others = textwrap.wrap(label, free, break_on_hyphens=False)
        yield node, [first + strokes.node + first_line, *(under + line for line in others)]
        for child in children:
            names = " ".join(child.tasks)
            if len(children) == 1:
                yield from draw(child, names if node is None else "(same)", rest, rest)
            else:
                last = child is children[-1]
                stroke, beside = (strokes.last, strokes.blank) if last else (strokes.fork, strokes.line)
                yield from draw(child, names, rest + stroke, rest + beside)

    yield from draw(None, "image", "", "")


def depth_first(tree: TaskTree, root: Node | None = None) -> Iterator[Node]:
    """The nodes below `root`, or all, in the order in which they are drawn."""
    for child in _children(tree, root):
        yield child
        yield from depth_first(tree, child)


def _children(tree: TaskTree, node: Node | None) -> list[Node]:
    """The nodes that this one forks into; those of the first level for None."""
    level = 0 if node is None else node.level + 1
    if level == tree.num_levels:
        return []
    found = [child for child in tree.nodes() if child.level == level]
    return [
        child for child, parent in zip(found, tree.parents(level), strict=True) if node is None or parent == node.index
    ]
