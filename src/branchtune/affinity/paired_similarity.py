"""Element-wise and per-tensor normalised similarity, from disjoint pairs of different samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from branchtune.affinity.estimator import Estimate, Estimator
from branchtune.affinity.gradients import Layout
from branchtune.affinity.similarity import cosine_of, products


class PairedSimilarity(Estimator):
    """The mean similarity over pairs, for normalisations that need both gradients at once.

    Every two tasks compare their gradients on a sample with those on the latest earlier sample that both have not
    used yet; without missing labels these are the pairs (0, 1), (2, 3), ... in both orders. Pairs do not overlap, so
    that the standard error is that of a mean of independent values. One gradient per task is kept.

    Args:
        tasks: T.
        layout: of the flat gradients.
        normalize: "elementwise" or "per_tensor" ("none" works too, from fewer pairs than `MeanCosine` uses).
    """

    def __init__(self, tasks: int, layout: Layout, normalize: str) -> None:
        self.layout, self.normalize = layout, normalize
        self.latest: dict[int, tuple[int, Tensor]] = {}
        self.used = torch.full((tasks, tasks), -1)
        shape = (layout.levels + 1, tasks, tasks)
        self.count = np.zeros((tasks, tasks))
        self.sum, self.square = np.zeros(shape), np.zeros(shape)
        self.seen = 0

    def add(self, gradients: Tensor, labelled: Tensor) -> None:
        for column in range(gradients.shape[1]):
            here = {t: gradients[t, column] for t in labelled[:, column].nonzero()[:, 0].tolist()}
            for t in range(len(gradients)):
                for s in range(t, len(gradients)):
                    self._compare(t, s, here)
            self.latest |= {t: (self.seen, gradient.clone()) for t, gradient in here.items()}
            self.seen += 1

    def _compare(self, t: int, s: int, here: dict[int, Tensor]) -> None:
        orders = {(t, s), (s, t)}
        values = [
            self._similarities(self.latest[a][1], here[b])
            for a, b in sorted(orders)
            if b in here and a in self.latest and self.latest[a][0] > self.used[t, s]
        ]
        if not values:
            return
        value = np.mean(values, axis=0)
        self.used[t, s] = self.seen
        for a, b in orders:
            self.count[a, b] += 1
            self.sum[:, a, b] += value
            self.square[:, a, b] += value**2

    def _similarities(self, g: Tensor, h: Tensor) -> np.ndarray:
        """Overall, then per level: `[1 + L]`."""
        per_tensor = products(g, h, self.normalize, self.layout.sizes).cpu().double()
        level_of = torch.tensor(self.layout.level_of)
        per_level = per_tensor.new_zeros(3, self.layout.levels).index_add_(1, level_of, per_tensor)
        return cosine_of(torch.cat([per_level.sum(1, keepdim=True), per_level], dim=1)).numpy()

    def estimate(self) -> Estimate:
        mean = self.sum / self.count
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.maximum(self.square / self.count - mean**2, 0) / (self.count - 1)
            error = np.sqrt(np.where(self.count > 1, variance, np.nan))
        return Estimate(mean[0], error[0], mean[1:], error[1:])
