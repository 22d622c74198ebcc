"""One-to-one correspondence of the pixels of two masks."""

from __future__ import annotations

import math

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import maximum_bipartite_matching


def count_matches(first: np.ndarray, second: np.ndarray, radius: float) -> int:
    """The largest number of pairs of a pixel of each mask, none used twice, at most `radius` pixels apart.

    A maximum matching of the bipartite graph that joins all pixels within the distance. The assignment of least cost
    that edge benchmarks speak of (D. Martin et al., "Learning to detect natural image boundaries using local
    brightness, color, and texture cues", 2004) has as many pairs: an unmatched pixel costs more than any distance.

    Args:
        first, second: bool `[H, W]`.
        radius: Euclidean; pixels at exactly this distance may be paired.
    """
    rows, columns = np.nonzero(first)
    total = int(second.sum())
    if not len(rows) or not total:
        return 0
    reach = math.floor(radius)
    number = np.full(second.shape, -1, dtype=np.int32)
    number[second] = np.arange(total, dtype=np.int32)
    width = second.shape[1] + 2 * reach
    flat = np.pad(number, reach, constant_values=-1).reshape(-1)
    offsets = [
        dy * width + dx
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if math.hypot(dy, dx) <= radius
    ]
    near = flat[((rows + reach) * width + columns + reach)[:, None] + np.array(offsets)]
    joined = near >= 0
    starts = np.concatenate([[0], joined.sum(axis=1).cumsum()]).astype(np.int32)
    graph = csr_matrix((np.ones(starts[-1], dtype=np.int8), near[joined], starts), shape=(len(rows), total))
    return int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
