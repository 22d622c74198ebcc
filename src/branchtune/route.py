"""How one set of tasks runs through a tree."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from branchtune.errors import UserError
from branchtune.tree import TaskTree


@dataclass(frozen=True)
class Route:
    """How one set of tasks runs through the tree: which groups are active per level, and where they come from.

    Attributes:
        groups: per level, indices of the active groups, in the order that they have in the tree of these tasks alone:
            tasks that join or leave the tree do not change how the others are folded.
        parents: per level, for each active group the position of its parent among those active one level up, or None
            where every group simply continues.
        slot: per task and level, the position of its group among the active ones.
    """

    groups: tuple[tuple[int, ...], ...]
    parents: tuple[tuple[int, ...] | None, ...]
    slot: dict[str, tuple[int, ...]]

    @classmethod
    def of(cls, tree: TaskTree, tasks: Collection[str]) -> Route:
        """The route of these tasks; those asked for before are remembered.

        Raises:
            UserError: an unknown task, or none.
        """
        wanted = tuple(tasks)
        if not all(isinstance(task, str) for task in wanted):
            raise UserError(f"tasks={list(wanted)!r}: name tasks by texts, such as {list(tree.tasks)[:1]}")
        return _route(tree, wanted)

    def width(self, level: int) -> int:
        """How many times the batch is folded at `level`; -1 is the stem."""
        return 1 if level < 0 else len(self.groups[level])


@lru_cache(maxsize=256)
def _route(tree: TaskTree, tasks: tuple[str, ...]) -> Route:
    own = tree.restrict(tasks)
    paths = {task: tree.path(task) for task in tasks}
    groups = tuple(tuple(tree.group_of(group[0], level) for group in active) for level, active in enumerate(own.levels))
    parents: list[tuple[int, ...] | None] = []
    for level, active in enumerate(groups):
        above = (0,) if level == 0 else groups[level - 1]
        source = tuple(above.index(tree.parents(level)[group]) for group in active)
        parents.append(None if source == tuple(range(len(above))) else source)
    slot = {task: tuple(groups[level].index(group) for level, group in enumerate(path)) for task, path in paths.items()}
    return Route(groups, tuple(parents), slot)
