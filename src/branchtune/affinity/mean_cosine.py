"""Plain cosine between different samples, from running sums of unit gradients.

For samples drawn independently E[cos(g, g')] = <E[g/|g|], E[g'/|g'|]>, so that no pair is ever formed: with u the unit
gradients and S their sums, the mean over all pairs i != j is (<S_t, S_t'> - C) / (n_t n_t' - m), where C is the sum of
<u_t,i, u_t',i> over the m samples that are labelled for both tasks.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from branchtune.affinity.estimator import Estimate, Estimator
from branchtune.affinity.gradients import Layout
from branchtune.affinity.matrix import Matrix

MAX_BLOCKS = 32
MIN_BLOCKS = 8
MEMORY = 2**30


class MeanCosine(Estimator):
    """The mean over all pairs of different samples, exactly, in one pass.

    Standard errors are a jackknife over blocks: sample i belongs to block i mod b, and the sums are kept per block, so
    that leaving one block out costs inner products of sums only. With at most b samples it is the delete-one jackknife.
    Delete-one on more samples would need every <u_i, S> and with it all gradients at once or a second pass over the
    data; 32 blocks know a standard error to about 13 %. Memory is 2 b T P numbers: b falls to 8 where P is large.

    Args:
        tasks: T.
        layout: of the flat gradients.
        blocks: b; default: 32, fewer (at least 8) where the sums would pass 1 GiB.
    """

    def __init__(self, tasks: int, layout: Layout, blocks: int | None = None) -> None:
        affordable = MEMORY // (8 * tasks * max(1, layout.total))
        self.blocks = blocks or min(MAX_BLOCKS, max(MIN_BLOCKS, affordable))
        self.slices = layout.level_slices()
        self.shape = (self.blocks, tasks, layout.total)
        #: sums of gradients of unit length as a whole, and of those whose part at each level has unit length
        self.sums: tuple[Tensor, Tensor] | None = None
        matrices = (self.blocks, len(self.slices) + 1, tasks, tasks)
        self.same_sample = torch.zeros(matrices, dtype=torch.float64)
        self.labelled = torch.zeros(self.blocks, tasks, dtype=torch.float64)
        self.both = torch.zeros(self.blocks, tasks, tasks, dtype=torch.float64)
        self.seen = 0

    def add(self, gradients: Tensor, labelled: Tensor) -> None:
        if self.sums is None:
            self.sums = (gradients.new_zeros(self.shape), gradients.new_zeros(self.shape))
        rows = gradients.transpose(0, 1)
        # Scaled by the largest element first, so that squares of tiny gradients do not vanish in float32.
        peak = rows.abs().amax(-1, keepdim=True)
        rows = rows / torch.where(peak == 0, torch.ones_like(peak), peak)
        inner = torch.stack([rows[..., part] @ rows[..., part].mT for part in self.slices], dim=1)
        inner = torch.cat([inner.sum(1, keepdim=True), inner], dim=1)
        lengths = inner.diagonal(dim1=-2, dim2=-1).sqrt()
        scale = torch.where(lengths == 0, torch.zeros_like(lengths), 1 / lengths)
        block = torch.arange(self.seen, self.seen + len(rows), device=rows.device) % self.blocks
        self.seen += len(rows)
        whole, by_level = self.sums
        whole.index_add_(0, block, rows * scale[:, 0, :, None])
        for level, part in enumerate(self.slices, start=1):
            by_level[..., part].index_add_(0, block, rows[..., part] * scale[:, level, :, None])
        block = block.cpu()
        cosines = (inner * scale[..., None] * scale[..., None, :]).cpu().double()
        self.same_sample.index_add_(0, block, cosines)
        has = labelled.T.cpu().double()
        self.labelled.index_add_(0, block, has)
        self.both.index_add_(0, block, has[:, :, None] * has[:, None, :])

    def estimate(self) -> Estimate:
        assert self.sums is not None
        whole, by_level = self.sums
        results = [self._jackknife(0, whole)]
        results += [self._jackknife(i, by_level[..., part]) for i, part in enumerate(self.slices, start=1)]
        values, errors = (np.stack(column) for column in zip(*results, strict=True))
        return Estimate(values[0], errors[0], values[1:], errors[1:])

    def _jackknife(self, matrix: int, sums: Tensor) -> tuple[Matrix, Matrix]:
        used = range(min(self.blocks, self.seen))
        parts, labelled, both = (x[: len(used)] for x in (sums, self.labelled, self.both))
        same = self.same_sample[: len(used), matrix]
        total = parts.sum(0)
        own = (parts @ parts.mT).cpu().double()
        cross = (parts @ total.mT).cpu().double()
        products, count = cross.sum(0), labelled.sum(0)
        value = (products - same.sum(0)) / (count[:, None] * count - both.sum(0))
        # Without block b: <S - S_b, S' - S'_b> over the pairs of different samples that remain.
        rest = count - labelled
        pairs = rest[:, :, None] * rest[:, None, :] - (both.sum(0) - both)
        left_out = (products - cross - cross.mT + own - (same.sum(0) - same)) / pairs
        matters = (labelled[:, :, None] + labelled[:, None, :] > 0).double()
        blocks = matters.sum(0)
        mean = (left_out * matters).sum(0) / blocks
        variance = ((left_out - mean) * matters).square().sum(0) * (blocks - 1) / blocks
        error = torch.where(variance.isfinite(), variance, torch.nan).sqrt()
        return ((value + value.mT) / 2).numpy(), error.numpy()
