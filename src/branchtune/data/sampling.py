"""The order of the samples and the randomness of each, as pure functions of (seed, epoch, index)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from branchtune.errors import UserError


def _generator(seed: int, *key: int) -> np.random.Generator:
    if seed < 0:
        raise UserError(f"seed {seed}: must be at least 0")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, the same in every process and after every resume."""
    return _generator(seed, epoch, index)


class EpochSampler:
    """A batch sampler whose batches of `(epoch, index)` pairs depend on the seed and the epoch alone.

    Pass it as `DataLoader(dataset, batch_sampler=...)`, with a dataset whose `__getitem__` takes such a pair:
    that way the epoch reaches the workers even when they persist. Call `set_epoch` before each epoch, as
    Lightning does.

    Args:
        length: number of samples, at least 1.
        batch_size: samples per batch; the last batch may hold fewer.
        seed: of the permutation, at least 0.
        shuffle: permute the samples in every epoch; otherwise they come in order.
        drop_last: leave out a last batch that is not full. A set smaller than one batch is still one batch.
        rank, processes: this process and how many share the epoch. A joint batch of `processes * batch_size` samples is
            what one process with that batch size would have; each process has its slice of it, every sample is in one.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if length < 1:
            raise UserError("a dataset without samples cannot be sampled: check its split")
        if batch_size < 1:
            raise UserError(f"batch size {batch_size}: must be at least 1")
        if length < processes:
            raise UserError(f"{length} samples for {processes} processes: each needs at least one, use fewer processes")
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rank, self.processes = rank, processes
        self.epoch = 0

    @property
    def sampler(self) -> EpochSampler:
        """Itself: Lightning calls `set_epoch` on `dataloader.batch_sampler.sampler`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.length, self.processes * self.batch_size)
        return max(1, full) if self.drop_last else full + (rest > self.rank)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = _generator(self.seed, epoch).permutation(self.length) if self.shuffle else range(self.length)
        pairs = [(epoch, int(index)) for index in order]
        joint = self.processes * self.batch_size
        for batch in range(len(self)):
            yield pairs[batch * joint : (batch + 1) * joint][self.rank :: self.processes]
