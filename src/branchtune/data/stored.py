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
        on_bad: what to do about ids listed twice or in two splits, files that are missing or two of one id, and files
            that cannot be used. `refuse` raises: about all but the last at once, about contents when the sample is
            read. `skip` leaves the samples out: `prepare` reads all of them first, and `skipped` says why each is gone.
        limit: take the first so many samples that can be used; problems of those after them do not count. None
            takes all.

    Attributes:
        ids: of the samples, in their order.
        skipped: the problems of the samples that were left out.

    Raises:
        UserError: unknown split or task, a task of another kind than its label, a problem where none is allowed, a
            limit below 1.
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
        limit: int | None = None,
    ) -> None:
        check_tasks(source.kinds, tasks)
        if limit is not None and limit < 1:
            raise UserError(f"limit={limit}: at least 1 sample, or None for all")
        self.source, self.split, self.seed, self.on_bad = source, split, seed, on_bad
        kinds: Kinds = {task.name: "lines" if task.thin_lines else task.target_kind for task in tasks}
        self.transform = Transform(kinds, image_size, mean, std, augmentation, interpolation)
        self._listed = list(dict.fromkeys(source.listed(split)))
        self._problems = source.describe_split(split)
        if on_bad == "refuse":
            refuse(source, split, self._problems_until(self._listed[:limit][-1]))
        gone = left_out(self._problems)
        self._candidates = [id_ for id_ in self._listed if id_ not in gone]
        self._limit = limit
        self.ids = self._candidates[:limit]
        self.skipped = self._problems_until(self.ids[-1] if len(self.ids) == limit else self._listed[-1])
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

    @property
    def class_names(self) -> Mapping[str, Sequence[str]]:
        """Of the labels whose classes have known names."""
        return self.source.class_names

    @property
    def missing(self) -> int:
        """How many samples `prepare` has to find."""
        return 0 if self._tried else len(self.ids)

    def prepare(self, progress: Callable[[int, int], None] | None = None, workers: int = 1) -> None:
        """Read every sample once and leave out those that cannot be used; nothing to do with `on_bad="refuse"`.

        Under a limit the next ones take their places.

        Args:
            progress: called with (samples done, all samples) after each one that is kept, or left out for good.
            workers: processes to read with. A dataset with a cache reads in this one and keeps what it read.

        Raises:
            UserError: no sample is left.
        """
        if self._tried:
            return
        wanted, spare = len(self.ids), len(self._candidates) - len(self.ids)
        kept: list[str] = []
        bad: list[Problem] = []
        last = self._listed[-1]
        for id_, reason in self._trials(workers):
            if reason:
                bad.append(Problem(self.split, id_, "bad content", reason))
            else:
                kept.append(id_)
            if progress is not None and (not reason or len(bad) > spare):
                progress(len(kept) + max(0, len(bad) - spare), wanted)
            if len(kept) == self._limit:
                last = id_
                break
        self.ids, self.skipped, self._tried = kept, self._problems_until(last) + bad, True
        self._check_any_left()

    def _trials(self, workers: int) -> DataLoader[tuple[str, str]]:
        processes = workers if workers > 1 and self._cache is None else 0
        # A generator of its own: a loader draws from torch's, and the run's random numbers must not change.
        generator = torch.Generator().manual_seed(0)
        return DataLoader(_Trials(self, self._candidates), batch_size=None, num_workers=processes, generator=generator)

    def _problems_until(self, last: str) -> list[Problem]:
        """Those of the list and of missing files, of the ids up to `last`."""
        seen = set(self._listed[: self._listed.index(last) + 1])
        return [problem for problem in self._problems if problem.id in seen]

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
    """For every id, the id and why its sample cannot be used, or an empty string."""

    def __init__(self, samples: StoredSamples, ids: Sequence[str]) -> None:
        self.samples, self.ids = samples, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[str, str]:
        id_ = self.ids[index]
        try:
            self.samples._raw(id_)
        except UserError as error:
            return id_, str(error)
        return id_, ""
