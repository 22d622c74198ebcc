"""Configuration -> data sets and loaders."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Sized
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader

from branchtune.config import DataConfig
from branchtune.data.collate import Collate
from branchtune.data.sampling import EpochSampler
from branchtune.data.stored import StoredSamples
from branchtune.errors import UserError
from branchtune.progress import Reporter
from branchtune.tasks.task import Task

# Fewer scenes than this are rendered sooner than worker processes have started.
WORTH_WORKERS = 300
# What files need and rendered scenes do not, with the values that change nothing.
UNUSED_BY_SCENES = {"augmentation": None, "on_bad": "refuse"}
# The share of a process that is alone.
ALL = (0, 1)


class SampleSource(Sized, Protocol):
    def __getitem__(self, index: int | tuple[int, int], /) -> dict[str, Any]: ...


def make_dataset(
    config: DataConfig, split: str, tasks: Sequence[Task], mean: Sequence[float], std: Sequence[float], seed: int
) -> SampleSource:
    """The samples of one split, `train`, `val` or `test`; data without a test split of their own give their val.

    Args:
        mean, std: the backbone's normalisation.
        seed: of the augmentation.

    Raises:
        UserError: the configuration or the files do not fit.
    """
    limits = {"train": config.train_size, "val": config.val_size, "test": config.test_size}
    if config.kind == "scenes":
        return _scenes(config, split, limits[split], tasks, mean, std)
    from branchtune.data.sources import open_source

    if config.root is None:
        raise UserError(f"data.root is not set: give the folder of the {config.kind} data (--data.root FOLDER)")
    source = open_source(config.kind, config.root, tasks)
    return StoredSamples(
        source,
        "val" if split == "test" and not source.has_split("test") else split,
        tasks,
        (config.image_size[0], config.image_size[1]),
        mean=mean,
        std=std,
        augmentation=config.augmentation if split == "train" else None,
        seed=seed,
        cache=config.cache,
        interpolation=config.interpolation,
        on_bad=config.on_bad,
        limit=limits[split],
    )


def _scenes(
    config: DataConfig,
    split: str,
    count: int | None,
    tasks: Sequence[Task],
    mean: Sequence[float],
    std: Sequence[float],
) -> SampleSource:
    if count is None:
        raise UserError(f"data.{split}_size is not set: say how many scenes to render")
    for key, plain in UNUSED_BY_SCENES.items():
        if getattr(config, key) != plain:
            raise UserError(
                f"data.{key} has no effect on scenes, which are rendered and used as they are: leave it out "
                f"(--data.{key}={'null' if plain is None else plain})"
            )
    from branchtune.data.scenes import DENSE_LABELS

    names = tuple(task.name for task in tasks)
    height, width = config.image_size
    labels = DENSE_LABELS if set(names) <= set(DENSE_LABELS) else names
    return _rendered(split, count, (height, width), config.seed, labels, tuple(mean), tuple(std))


# The splits of one run: those of the run before it in the same process are dropped unless they are the same.
@lru_cache(maxsize=3)
def _rendered(
    split: str,
    count: int,
    size: tuple[int, int],
    seed: int,
    labels: tuple[str, ...],
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> SampleSource:
    """Scenes with all dense labels: runs of one process share what was rendered, whatever their tasks."""
    from branchtune.data.scenes import Scenes

    return Scenes(split, count, size, seed=seed, tasks=labels, mean=mean, std=std)


def prepare(dataset: SampleSource, reporter: Reporter, title: str) -> None:
    """Do what has to be done before the first epoch (rendering scenes, looking for bad files), with progress."""
    render = getattr(dataset, "prepare", None)
    missing = getattr(dataset, "missing", 0)
    if render is None or not missing:
        return
    workers = min(4, os.cpu_count() or 1) if missing >= WORTH_WORKERS else 1
    with reporter.track(title, missing) as advance:
        render(progress=lambda done, total: advance(), workers=workers)


def check_sizes(sizes: Mapping[str, int], compares: bool, processes: int) -> None:
    """Refuse splits that are too small for what will be done with them.

    Args:
        sizes: samples of `train` and `val`.
        compares: whether affinity will compare training images.
        processes: that share the splits.

    Raises:
        UserError: how many there are, and what to do.
    """
    train, val = sizes["train"], sizes["val"]
    if compares and train < 2:
        raise UserError(
            f"{train} training image: affinity compares the gradients of different ones, give at least 2 "
            "(data.train_size), a tree by hand (tree.levels), or a method without a planned tree"
        )
    for split, count in (("training", train), ("validation", val)):
        if not count:
            raise UserError(f"there is no {split} image: give at least 1 (data.train_size, data.val_size)")
    if min(train, val) < processes:
        raise UserError(
            f"{train} training and {val} validation images for {processes} processes: each process needs one of both, "
            "use fewer processes"
        )


def train_loader(
    dataset: SampleSource, config: DataConfig, tasks: Sequence[Task], seed: int, share: tuple[int, int] = ALL
) -> DataLoader[Any]:
    """Shuffled batches; order and augmentation of an epoch depend on (seed, epoch) alone.

    Args:
        share: number of this process, and how many there are: each has its part of every batch.
    """
    rank, count = share
    sampler = EpochSampler(len(dataset), config.batch_size, seed, drop_last=True, rank=rank, processes=count)
    return _loader(dataset, sampler, config, tasks)


def eval_loader(
    dataset: SampleSource, config: DataConfig, tasks: Sequence[Task], share: tuple[int, int] = ALL
) -> DataLoader[Any]:
    """Every sample once, in order; `share` as in `train_loader`."""
    rank, count = share
    sampler = EpochSampler(len(dataset), config.eval_batch_size, shuffle=False, rank=rank, processes=count)
    return _loader(dataset, sampler, config, tasks)


def _loader(dataset: Any, sampler: EpochSampler, config: DataConfig, tasks: Sequence[Task]) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=Collate(tasks),
        num_workers=config.workers,
        persistent_workers=config.workers > 0,
        pin_memory=config.pin_memory and torch.cuda.is_available(),
    )
