"""Trees that a planned one must beat: random ones, and one planned from negated affinity."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from itertools import islice

import numpy as np

from branchtune.affinity.matrix import Affinity
from branchtune.errors import UserError
from branchtune.planning.planner import plan
from branchtune.tree import TaskTree

_DIFFERENT, _VAIN = 64, 500  # trees that differ, and draws without a new one after which there is no other


def random_tree(tasks: Sequence[str], groups: Sequence[int], seed: int, but: Collection[TaskTree] = ()) -> TaskTree:
    """A tree with the given number of groups per level, drawn from the top down.

    Every split takes one of the groups that can be split, with equal chances, and a random non-empty part of its tasks.
    Trees are drawn without replacement, in one order whatever `but` holds: the seeds 0 to 63 give different trees as
    long as there are others, which then come again. A seed whose tree is excluded takes one from the end of the order.

    Args:
        tasks: names.
        groups: number of groups per level, not decreasing, from 1 to the number of tasks.
        seed: the same seed gives the same tree.
        but: trees that are not drawn, such as the planned one; unless no other has these counts.

    Raises:
        UserError: counts that no tree has.
    """
    counts = list(groups)
    if not counts or counts != sorted(counts) or not all(1 <= count <= len(tasks) for count in counts):
        raise UserError(f"groups={tuple(groups)}: give counts from 1 to {len(tasks)} that do not decrease")
    order = _order(tuple(sorted(tasks)), tuple(counts))
    first = order[seed % len(order)]
    others = [tree for tree in reversed(order) if tree not in but]
    return others[seed % len(others)] if first in but and others else first


@lru_cache(maxsize=16)
def _order(tasks: tuple[str, ...], counts: tuple[int, ...]) -> tuple[TaskTree, ...]:
    return tuple(islice(_different(list(tasks), list(counts)), _DIFFERENT))


def _different(tasks: list[str], counts: list[int]) -> Iterator[TaskTree]:
    draw, known, vain = np.random.default_rng(0), set[TaskTree](), 0
    while vain < _VAIN:
        tree = _drawn(tasks, counts, draw)
        vain = vain + 1 if tree in known else 0
        if not vain:
            known.add(tree)
            yield tree


def _drawn(tasks: list[str], counts: list[int], draw: np.random.Generator) -> TaskTree:
    partition, levels = [tasks], []
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
