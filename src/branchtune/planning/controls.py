"""Trees that a planned one must beat at the same group counts: random ones, and one planned from negated affinity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from branchtune.affinity.matrix import Affinity
from branchtune.errors import UserError
from branchtune.planning.planner import plan
from branchtune.tree import TaskTree


def random_tree(tasks: Sequence[str], groups: Sequence[int], seed: int) -> TaskTree:
    """A tree with the given number of groups per level, drawn from the top down.

    Every split takes one of the groups that can be split, with equal chances, and a random non-empty part of its tasks.

    Args:
        tasks: names.
        groups: number of groups per level, not decreasing, from 1 to the number of tasks.
        seed: the same seed gives the same tree.

    Raises:
        UserError: counts that no tree has.
    """
    counts = list(groups)
    if not counts or counts != sorted(counts) or not all(1 <= count <= len(tasks) for count in counts):
        raise UserError(f"groups={tuple(groups)}: give counts from 1 to {len(tasks)} that do not decrease")
    draw = np.random.default_rng(seed)
    partition, levels = [sorted(tasks)], []
    for count in counts:
        while len(partition) < count:
            splittable = [group for group in partition if len(group) > 1]
            chosen = splittable[draw.integers(len(splittable))]
            partition.remove(chosen)
            partition += _halves(chosen, draw)
        levels.append(list(partition))
    return TaskTree(levels)


def anti_affinity_tree(affinity: Affinity, groups: Sequence[int]) -> TaskTree:
    """The tree that puts tasks together which disagree: `plan` on the negated affinity.

    Args:
        affinity: as for `plan`.
        groups: number of groups per level.
    """
    matrix = -affinity.corrected()
    np.fill_diagonal(matrix, 1.0)
    return plan(
        Affinity.from_matrix(affinity.tasks, matrix, affinity.spec), groups=tuple(groups), noise_corrected=False
    )


def _halves(group: list[str], draw: np.random.Generator) -> list[list[str]]:
    while True:
        left = draw.random(len(group)) < 0.5
        if left.any() and not left.all():
            return [[t for t, here in zip(group, left, strict=True) if here == side] for side in (True, False)]
