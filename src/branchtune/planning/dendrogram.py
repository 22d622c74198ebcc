"""Average-linkage dendrogram of the tasks, and its cuts."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from branchtune.affinity.matrix import Matrix

Cut = tuple[tuple[int, ...], ...]


def dendrogram_cuts(affinity: Matrix) -> tuple[Cut, ...]:
    """The partitions of an average-linkage dendrogram on the distance 1 - A, by number of groups.

    Cuts follow the order of the merges, so that there is exactly one for every number of groups even between equal
    distances, and each refines the one with fewer groups.

    Args:
        affinity: `[T, T]`; made symmetric, its diagonal does not matter.

    Returns:
        T cuts; entry k - 1 has k groups of task indices.
    """
    count = len(affinity)
    groups: dict[int, tuple[int, ...]] = {i: (i,) for i in range(count)}
    cuts = [tuple(groups.values())]
    for step, (a, b, _) in enumerate(merges(affinity)):
        groups[count + step] = tuple(sorted(groups.pop(a) + groups.pop(b)))
        cuts.append(tuple(sorted(groups.values())))
    return tuple(reversed(cuts))


def merges(affinity: Matrix) -> list[tuple[int, int, float]]:
    """The steps of an average-linkage dendrogram on the distance 1 - A: the two groups that are joined, and where.

    Args:
        affinity: `[T, T]`; made symmetric, its diagonal does not matter.

    Returns:
        T - 1 steps; groups below T are tasks, group T + k is what step k made.
    """
    if len(affinity) < 2:
        return []
    distance = 1 - (affinity + affinity.T) / 2
    np.fill_diagonal(distance, 0.0)
    steps = linkage(squareform(distance, checks=False), method="average")
    return [(int(a), int(b), float(where)) for a, b, where, _ in steps]


def opposed_groups(affinity: Matrix) -> int:
    """How many groups are left when only tasks are parted whose affinity is below zero on average: 1 to T.

    The cut of the dendrogram at distance 1: what is joined below it agrees, what would be joined above it is opposed.

    Args:
        affinity: `[T, T]`, as for `merges`.
    """
    return 1 + sum(where > 1 + 1e-9 for _, _, where in merges(affinity))


def disagreement(affinity: Matrix, cut: Cut) -> float:
    """Mean of 1 - A over all pairs of tasks, where a pair in different groups counts as 0.

    0 when every task is on its own; splitting a group never increases it.
    """
    tasks = len(affinity)
    if tasks < 2:
        return 0.0
    within = sum(float(1 - affinity[a, b]) for group in cut for i, a in enumerate(group) for b in group[i + 1 :])
    return within / (tasks * (tasks - 1) / 2)
