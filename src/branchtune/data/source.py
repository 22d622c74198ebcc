"""Where stored samples come from: ids by split and one raw sample at a time, whatever the files look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import ClassVar

from torch import Tensor

from branchtune.data.problems import Problem, first_few
from branchtune.data.transforms import Sample
from branchtune.errors import UserError, unknown
from branchtune.tasks.task import TargetKind, Task


class Source(ABC):
    """A set of samples with dense labels, before any transform.

    Attributes:
        place: what messages call it: a folder or the name of a data set.
        kinds: how the target of every label behaves, by name; the labels that exist.
        labels: number of output channels of the labels to read, by name (for classes: how many there are).
    """

    place: str
    kinds: Mapping[str, TargetKind]
    labels: dict[str, int]
    #: of the classes, by label, where they are known
    class_names: Mapping[str, Sequence[str]] = {}
    #: labels that data of this kind may have and these do not, each with the folders that are not there
    absent: Mapping[str, str] = {}
    #: in the order in which an id that several splits list is kept: the first one has it
    split_names: ClassVar[Sequence[str]] = ("val", "test", "train")

    @abstractmethod
    def listed(self, split: str) -> list[str]:
        """The ids of a split in their order, as listed.

        Raises:
            UserError: there is no such split, or it is empty.
        """

    @abstractmethod
    def has_split(self, split: str) -> bool: ...

    @abstractmethod
    def missing(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of an id and the name of a file that it lacks."""

    def ambiguous(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of an id and the names of files of which one alone would be read; none unless overridden."""
        return []

    @abstractmethod
    def read(self, id_: str, split: str | None = None) -> Sample:
        """`{"id", "image": uint8 [3, H, W], <label>: [H, W] or [3, H, W]}`, ignored pixels 255 or NaN.

        A label that the sample does not have is left out.

        Args:
            id_: of the sample.
            split: the one that lists it, where it may be in several: a row of a table is another one in each. None for
                the one that keeps it, see `split_names`.

        Raises:
            UserError: a file cannot be decoded, has another size than the image, or holds a value out of range.
        """

    @abstractmethod
    def read_label(self, id_: str, name: str, split: str | None = None) -> Tensor | None:
        """One label of `read`, whatever the image is like; None where the sample does not have it.

        Raises:
            UserError: as `read`, of this label alone.
        """

    def keep_labels(self, names: Sequence[str] | None) -> None:
        """Read only these labels; None reads all that there are.

        Raises:
            UserError: there is no such label.
        """
        if names is None:
            return
        for name in names:
            if name in self.absent:
                raise UserError(f"{self.place}: there is no label {name!r}, {self.absent[name]} does not exist")
            if name not in self.labels:
                raise unknown("label", name, self.labels)
        self.labels = {name: self.labels[name] for name in names}

    def finish(self, sample: Sample) -> Sample:
        """The last word on a transformed sample; as it is unless overridden."""
        return sample

    def list_name(self, split: str) -> str:
        """What messages call the list of a split's ids."""
        return f"split {split!r}"

    def describe_split(self, split: str) -> list[Problem]:
        """What is wrong with the list of a split: ids listed twice or in another split, files missing or several."""
        ids = self.listed(split)
        problems = []
        for id_, count in Counter(ids).items():
            if count > 1:
                problems.append(Problem(split, id_, "listed twice", f"{self.list_name(split)}: {id_} is listed twice"))
        for other in self._kept_before(split):
            for id_ in dict.fromkeys(ids):
                if id_ in other[1]:
                    text = f"{self.list_name(split)}: {id_} is in {self.list_name(other[0])} too"
                    problems.append(Problem(split, id_, "in two splits", text))
        once = list(dict.fromkeys(ids))
        for id_, file in self.missing(once):
            problems.append(Problem(split, id_, "missing file", f"{self.place}: {file} is missing"))
        for id_, files in self.ambiguous(once):
            problems.append(Problem(split, id_, "several files", f"{self.place}: {files} are of one id, keep one"))
        return problems

    def _kept_before(self, split: str) -> list[tuple[str, set[str]]]:
        kept = []
        for name in self.split_names[: self.split_names.index(split)]:
            # A list that cannot be read is the fault of its own split, and named there.
            with suppress(UserError):
                if self.has_split(name):
                    kept.append((name, set(self.listed(name))))
        return kept


def refuse(source: Source, split: str, problems: Sequence[Problem]) -> None:
    """Raise one line about the first kind of problem, if there is any."""
    if not problems:
        return
    kind = problems[0].kind
    named = [problem.id for problem in problems if problem.kind == kind]
    where, few = source.list_name(split), first_few(named)
    ids = "1 id is" if len(named) == 1 else f"{len(named)} ids are"
    if kind == "listed twice":
        raise UserError(f"{where}: {ids} listed twice ({few}), list each once")
    if kind == "in two splits":
        raise UserError(f"{where}: {ids} in another split too ({few}), keep each in one of them")
    if kind == "several files":
        first = problems[0].text.removeprefix(f"{source.place}: ")
        raise UserError(f"{source.place}: {ids} stored more than once in split {split!r}: {first}")
    files = [p.text.removeprefix(f"{source.place}: ").removesuffix(" is missing") for p in problems if p.kind == kind]
    count, verb = ("1 file", "is") if len(files) == 1 else (f"{len(files)} files", "are")
    raise UserError(f"{source.place}: {count} of split {split!r} {verb} missing ({first_few(files)}), complete it")


def check_tasks(kinds: Mapping[str, TargetKind], tasks: Sequence[Task]) -> None:
    """Refuse a task that has no label, or whose label is of another kind."""
    for task in tasks:
        if task.name not in kinds:
            raise unknown("label", task.name, kinds)
        kind = kinds[task.name]
        if task.target_kind != kind:
            raise UserError(
                f"task {task.name!r} wants {task.target_kind!r} targets but its files hold {kind!r}, rename one"
            )
