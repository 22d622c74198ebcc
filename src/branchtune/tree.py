"""`TaskTree`: one partition of the tasks per level, each refining the one before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from branchtune.errors import UserError, unknown

Group = tuple[str, ...]
Partition = tuple[Group, ...]


@dataclass(frozen=True, order=True)
class Node:
    """One group of tasks at one level: a node of the tree, and the owner of one adapter set.

    Attributes:
        level: its level, 0 next to the stem.
        index: of the group among those of its level.
        tasks: names, sorted.
    """

    level: int
    index: int
    tasks: Group = field(compare=False)

    @property
    def key(self) -> str:
        """The node's name in parameter names, files and messages, e.g. `2/depth+normals`."""
        return f"{self.level}/{'+'.join(self.tasks)}"


@dataclass(frozen=True, init=False)
class TaskTree:
    """A tree of task groups: `levels[l]` partitions the tasks at level l, and refines `levels[l - 1]`.

    Tasks inside a group and groups inside a level are kept sorted, so equality, hash, JSON and parameter names do
    not depend on the order in which they were written.

    Args:
        levels: per level a sequence of groups, each a sequence of task names.

    Raises:
        UserError: a level misses or repeats a task, or does not refine the level before it.

    Examples:
        >>> together, apart = [["depth", "edge", "normals"]], [["edge"], ["normals", "depth"]]
        >>> tree = TaskTree([together, apart])
        >>> tree.group_counts
        (1, 2)
        >>> tree.levels[1]
        (('depth', 'normals'), ('edge',))
    """

    levels: tuple[Partition, ...]

    def __init__(self, levels: Iterable[Iterable[Iterable[str]]]) -> None:
        if isinstance(levels, str) or not isinstance(levels, Iterable):
            raise UserError(f"a tree is a list of levels, each a list of groups of task names, not {levels!r}")
        object.__setattr__(self, "levels", tuple(_partition(i, groups) for i, groups in enumerate(levels)))
        if not self.levels:
            raise UserError("a tree needs at least one level")
        for index, (coarse, fine) in enumerate(zip(self.levels, self.levels[1:], strict=False), start=1):
            _check_same_tasks(index, coarse, fine)
            for group in fine:
                if not any(set(group) <= set(parent) for parent in coarse):
                    raise UserError(
                        f"level {index} of the tree does not refine level {index - 1}: the tasks of group "
                        f"{list(group)} were already separated; tasks separated once cannot share again"
                    )

    @classmethod
    def shared(cls, tasks: Sequence[str], num_levels: int) -> TaskTree:
        """All tasks in one group at every level."""
        return cls([[tasks]] * num_levels)

    @classmethod
    def separate(cls, tasks: Sequence[str], num_levels: int) -> TaskTree:
        """Every task on its own at every level."""
        return cls([[[task] for task in tasks]] * num_levels)

    @property
    def tasks(self) -> Group:
        """All tasks, sorted."""
        return tuple(sorted(task for group in self.levels[0] for task in group))

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return len(self.levels)

    @property
    def group_counts(self) -> tuple[int, ...]:
        """Number of groups per level."""
        return tuple(len(groups) for groups in self.levels)

    def nodes(self) -> Iterator[Node]:
        """Every node, level by level."""
        for level, groups in enumerate(self.levels):
            for index, tasks in enumerate(groups):
                yield Node(level, index, tasks)

    def group_of(self, task: str, level: int) -> int:
        """Index of the group that holds `task` at `level`."""
        for index, group in enumerate(self.levels[level]):
            if task in group:
                return index
        raise unknown("task", task, self.tasks)

    def path(self, task: str) -> tuple[int, ...]:
        """Group index per level, from the stem to the task's decoder."""
        return tuple(self.group_of(task, level) for level in range(self.num_levels))

    def parents(self, level: int) -> tuple[int, ...]:
        """For each group at `level`, the index of its parent at `level - 1`; all zero (the stem) at level 0."""
        if level == 0:
            return (0,) * len(self.levels[0])
        return tuple(self.group_of(group[0], level - 1) for group in self.levels[level])

    def restrict(self, tasks: Iterable[str]) -> TaskTree:
        """The tree of a subset of the tasks: the nodes on their paths."""
        wanted = list(tasks)
        for task in wanted:
            if task not in self.tasks:
                raise unknown("task", task, self.tasks)
        if not wanted:
            raise UserError(f"no task asked for: name at least one of {list(self.tasks)}")
        kept = set(wanted)
        return TaskTree(
            [[[t for t in group if t in kept] for group in groups if kept & set(group)] for groups in self.levels]
        )

    def with_task(self, task: str, like: str, levels: int) -> TaskTree:
        """The tree with one more task, which shares the path of another one up to a level.

        Args:
            task: its name.
            like: the task whose nodes it shares.
            levels: how many levels it shares, from the input on; below them it has nodes of its own. 0 shares none,
                `num_levels` all.

        Raises:
            UserError: a task of that name is there, there is no task `like`, or `levels` is out of range.

        Examples:
            >>> TaskTree([[["a", "b"]], [["a"], ["b"]]]).with_task("c", like="a", levels=1).levels[1]
            (('a',), ('b',), ('c',))
        """
        if task in self.tasks:
            raise UserError(f"the tree already has a task {task!r}: give the new one another name")
        if like not in self.tasks:
            raise unknown("task", like, self.tasks)
        if isinstance(levels, bool) or not isinstance(levels, int) or not 0 <= levels <= self.num_levels:
            raise UserError(
                f"levels={levels!r}: a new task shares 0 to {self.num_levels} levels of this tree, {self.num_levels} "
                "for all"
            )
        return TaskTree(
            [
                [[*group, task] if like in group and level < levels else group for group in groups]
                + ([] if level < levels else [[task]])
                for level, groups in enumerate(self.levels)
            ]
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary, with a format version."""
        return {"format": 1, "levels": [[list(group) for group in groups] for groups in self.levels]}

    @classmethod
    def from_json(cls, data: str | dict[str, Any]) -> TaskTree:
        """The inverse of `to_json`; accepts the dictionary or its text."""
        try:
            content = json.loads(data) if isinstance(data, str) else data
            version, levels = content["format"], content["levels"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"not a tree: expected JSON with 'format' and 'levels' ({error})") from error
        if version != 1:
            raise UserError(
                f"tree format {version} is newer than this version of branchtune reads (1): update branchtune"
            )
        return cls(levels)

    def __str__(self) -> str:
        """The tree in text, one line per node, children indented below their parent."""
        lines: list[str] = []

        def draw(level: int, index: int, prefix: str, branch: str) -> None:
            lines.append(f"{prefix}{branch}{' '.join(self.levels[level][index])}")
            below = prefix + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
            children = [] if level + 1 == self.num_levels else _indices(self.parents(level + 1), index)
            for child in children:
                draw(level + 1, child, below, "└─ " if child == children[-1] else "├─ ")

        for root in range(len(self.levels[0])):
            draw(0, root, "", "")
        return "\n".join(lines)


def _indices(values: Sequence[int], wanted: int) -> list[int]:
    return [i for i, value in enumerate(values) if value == wanted]


def _partition(level: int, groups: Iterable[Iterable[str]]) -> Partition:
    if isinstance(groups, str) or not isinstance(groups, Iterable):
        raise UserError(f"level {level} of the tree is {groups!r}: write a list of groups of task names")
    partition: list[Group] = []
    for group in groups:
        if isinstance(group, str):
            raise UserError(f"level {level} of the tree: group {group!r} is a text, write [{group!r}]")
        names = list(group) if isinstance(group, Iterable) else [group]
        if not isinstance(group, Iterable) or not all(isinstance(name, str) for name in names):
            raise UserError(f"level {level} of the tree: group {group!r} is not a list of task names")
        members = tuple(sorted(names))
        if not members:
            raise UserError(f"level {level} of the tree has an empty group")
        partition.append(members)
    names = [task for group in partition for task in group]
    repeated = sorted({task for task in names if names.count(task) > 1})
    if repeated:
        raise UserError(
            f"level {level} of the tree repeats task {repeated[0]!r}: every task belongs to one group per level"
        )
    if not names:
        raise UserError(f"level {level} of the tree has no group")
    return tuple(sorted(partition))


def _check_same_tasks(level: int, before: Partition, here: Partition) -> None:
    expected, found = ({task for group in groups for task in group} for groups in (before, here))
    for problem, tasks in (("misses", expected - found), ("adds", found - expected)):
        if tasks:
            raise UserError(
                f"level {level} of the tree {problem} task {min(tasks)!r}: every level must hold the same tasks"
            )
