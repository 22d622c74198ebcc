from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from branchtune.data.sampling import EpochSampler, sample_generator
from branchtune.errors import UserError

lengths = st.integers(1, 40)
batch_sizes = st.integers(1, 12)


@settings(deadline=None)
@given(lengths, batch_sizes, st.booleans(), st.booleans())
def test_batches_cover_the_set_once(length: int, batch_size: int, shuffle: bool, drop_last: bool):
    sampler = EpochSampler(length, batch_size, shuffle=shuffle, drop_last=drop_last)
    batches = list(sampler)
    indices = [index for batch in batches for _, index in batch]
    assert len(batches) == len(sampler) >= 1
    assert len(set(indices)) == len(indices)
    if not drop_last:
        assert sorted(indices) == list(range(length))
    elif length >= batch_size:
        assert all(len(batch) == batch_size for batch in batches)
        assert len(batches) == length // batch_size
    else:
        assert sorted(indices) == list(range(length))


def test_without_shuffling_the_order_is_the_sets():
    assert list(EpochSampler(5, 2, shuffle=False)) == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)]]


def order(sampler: EpochSampler, epoch: int) -> list[list[tuple[int, int]]]:
    sampler.set_epoch(epoch)
    return list(sampler)


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    run = EpochSampler(50, 8, seed=3)
    epochs = [order(run, epoch) for epoch in range(4)]
    resumed = EpochSampler(50, 8, seed=3)
    assert [order(resumed, epoch) for epoch in (2, 3)] == epochs[2:]
    indices = [[index for batch in batches for _, index in batch] for batches in epochs]
    assert len({tuple(i) for i in indices}) == 4
    other = [index for batch in order(EpochSampler(50, 8, seed=4), 0) for _, index in batch]
    assert other != indices[0]


def test_an_iteration_keeps_the_epoch_it_started_with():
    sampler = EpochSampler(4, 2, shuffle=False)
    batches = iter(sampler)
    next(batches)
    sampler.set_epoch(1)
    assert next(batches) == [(0, 2), (0, 3)]


class Echo(Dataset):
    def __getitem__(self, pair: tuple[int, int]) -> tuple[int, int, float]:
        return (*pair, sample_generator(0, *pair).random())


@pytest.mark.parametrize("workers", [0, 2])
def test_persistent_workers_see_the_epoch(workers: int):
    sampler = EpochSampler(10, 3, seed=1)
    loader = DataLoader(
        Echo(),
        batch_sampler=sampler,
        collate_fn=list,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    assert len(loader) == 4
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        seen = [sample for batch in loader for sample in batch]
        assert seen == [Echo()[pair] for batch in order(EpochSampler(10, 3, seed=1), epoch) for pair in batch]


def test_lightning_sets_the_epoch():
    from lightning.fabric.utilities.data import _set_sampler_epoch

    sampler = EpochSampler(10, 3)
    _set_sampler_epoch(DataLoader(Echo(), batch_sampler=sampler), 7)
    assert sampler.epoch == 7


def test_generators_differ_in_each_argument_and_repeat():
    keys = [(s, e, i) for s in range(3) for e in range(3) for i in range(3)]
    draws = [sample_generator(*key).random() for key in keys]
    assert len(set(draws)) == len(keys)
    assert draws == [sample_generator(*key).random() for key in keys]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 1), "without samples"), ((1, 0), "batch size 0")],
)
def test_impossible_sizes_are_refused(arguments: tuple[int, int], message: str):
    with pytest.raises(UserError, match=message):
        EpochSampler(*arguments)


def test_a_negative_seed_is_refused():
    with pytest.raises(UserError, match="seed -1"):
        sample_generator(-1, 0, 0)
    with pytest.raises(UserError, match="seed -1"):
        list(EpochSampler(3, 1, seed=-1))
