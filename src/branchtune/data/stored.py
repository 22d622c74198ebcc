"""Stored samples as a map-style dataset: transformed, cached, without the bad ones where that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch.utils.data import DataLoader, Dataset

from branchtune.data.augmentation import Augmentation, Interpolation
from branchtune.data.problems import Problem, left_out
from branchtune.data.sampling import sample_generator
from branchtune.data.source import Source, check_tasks, refuse
from branchtune.data.transforms import Kinds, Sample, Transform
from branchtune.errors import UserError
from branchtune.tasks.task import Task

OnBad = Literal["refuse", "skip"]


class StoredSamples(Dataset[Sample]):
    """The samples of one split of a source.

    Args:
        source: where they are.
        split: "train", "val" or "test", where the source has it.
        tasks: whose labels to read; only their files are required.
        image_size: height and width of the samples.
        mean, std: per channel normalisation of images in [0, 1].
        augmentation: None for evaluation.
        seed: with the epoch and the index, of the augmentation.
        cache: keep every decoded sample at its file's size in memory, in each worker process.
        interpolation: of images and normals, see `Transform`.
        on_bad: what to do about ids listed twice or in two splits, missing files, and files that cannot be used.
            `refuse` raises: about lists and missing files at once, about contents when the sample is read. `skip`
            leaves the samples out: `prepare` reads all of them first, and `skipped` says why each one is gone.

    Attributes:
        ids: of the samples, in their order.
        skipped: the problems of the samples that were left out.

    Raises:
        UserError: unknown split or task, a task of another kind than its label, a problem where none is allowed.
    """

    def __init__(
        self,
        source: Source,
        split: str,
        tasks: Sequence[Task],
        image_size: tuple[int, int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache: bool = False,
        interpolation: Interpolation = "linear",
        on_bad: OnBad = "refuse",
    ) -> None:
        check_tasks(source.kinds, tasks)
        self.source, self.split, self.seed, self.on_bad = source, split, seed, on_bad
        kinds: Kinds = {task.name: "lines" if task.thin_lines else task.target_kind for task in tasks}
        self.transform = Transform(kinds, image_size, mean, std, augmentation, interpolation)
        problems = source.describe_split(split)
        if on_bad == "refuse":
            refuse(source, split, problems)
        gone = left_out(problems)
        self.ids = [id_ for id_ in dict.fromkeys(source.listed(split)) if id_ not in gone]
        self.skipped = problems
        self._cache: dict[str, Sample] | None = {} if cache else None
        self._tried = on_bad == "refuse"
        self._check_any_left()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """The sample at `index`, or at `(epoch, index)`: the epoch (else 0) decides the augmentation."""
        epoch, position = index if isinstance(index, tuple) else (0, index)
        position = range(len(self.ids))[position]
        sample = self.transform(self._raw(self.ids[position]), sample_generator(self.seed, epoch, position))
        return self.source.finish(sample)

    def limit(self, count: int | None) -> None:
        """Keep only the first `count` samples; None keeps all."""
        self.ids = self.ids[:count]

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """Of the labels whose classes have known names."""
        return self.source.class_names

    @property
    def missing(self) -> int:
        """How many samples `prepare` has to read."""
        return 0 if self._tried else len(self.ids)

    def prepare(self, progress: Callable[[int, int], None] | None = None, workers: int = 1) -> None:
        """Read every sample once and leave out those that cannot be used; nothing to do with `on_bad="refuse"`.

        Args:
            progress: called with (samples read, all samples) after each one.
            workers: processes to read with. A dataset with a cache reads in this one and keeps what it read.

        Raises:
            UserError: no sample is left.
        """
        if self._tried:
            return
        total, kept = len(self.ids), []
        processes = workers if workers > 1 and self._cache is None else 0
        # A generator of its own: a loader draws from torch's, and the run's random numbers must not change.
        trials = DataLoader(
            _Trials(self), batch_size=None, num_workers=processes, generator=torch.Generator().manual_seed(0)
        )
        for done, (id_, reason) in enumerate(trials, start=1):
            if reason:
                self.skipped.append(Problem(self.split, id_, "bad content", reason))
            else:
                kept.append(id_)
            if progress is not None:
                progress(done, total)
        self.ids, self._tried = kept, True
        self._check_any_left()

    def _check_any_left(self) -> None:
        if not self.ids:
            raise UserError(
                f"{self.source.list_name(self.split)}: none of its samples can be used "
                f"({len(self.skipped)} problems, the first: {self.skipped[0].text})"
            )

    def _raw(self, id_: str) -> Sample:
        if self._cache is None:
            return self.source.read(id_, self.split)
        if id_ not in self._cache:
            self._cache[id_] = self.source.read(id_, self.split)
        return self._cache[id_]


class _Trials(Dataset[tuple[str, str]]):
    """For every sample, its id and why it cannot be used, or an empty string."""

    def __init__(self, samples: StoredSamples) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples.ids)

    def __getitem__(self, index: int) -> tuple[str, str]:
        id_ = self.samples.ids[index]
        try:
            self.samples._raw(id_)
        except UserError as error:
            return id_, str(error)
        return id_, ""
