"""Sources with one file per image and label, named after the sample's id."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from branchtune.data.decoding import read_image
from branchtune.data.source import Source, check_tasks
from branchtune.data.transforms import Sample
from branchtune.errors import UserError, unknown
from branchtune.tasks.task import TargetKind, Task

#: reads the files of one label, given the number of channels and one path per entry of `Field.files`; the result is
#: `[H, W]` or `[3, H, W]` with ignored pixels marked, or None where the sample has no such label
Read = Callable[..., "np.ndarray | None"]


class Field(NamedTuple):
    """One kind of label.

    Attributes:
        kind: of its targets.
        read: decodes it.
        files: what it is read from; each entry is a template such as `depth/{id}.npy`, or several separated by `|` of
            which the first that exists is read.
        optional: whether a sample may lack the files; it has no such label then.
    """

    kind: TargetKind
    read: Read
    files: tuple[str, ...]
    optional: bool = False


class LabelFiles(Source):
    """A folder with an image and one file per label for every id, and one text file of ids per split.

    Args:
        root: the folder.
        labels: number of output channels of the labels to read, by name; only their files are required.

    Raises:
        UserError: there is no such folder or label.
    """

    fields: Mapping[str, Field]
    image: str = "images/{id}.jpg"
    lists: str
    #: what the root should be, for messages
    package: ClassVar[str]
    #: number of output channels of every label as published
    channels: ClassVar[Mapping[str, int]]
    splits: tuple[str, ...] = ("train", "val")

    def __init__(self, root: str | Path, labels: Mapping[str, int]) -> None:
        self.root = Path(root)
        self.place = str(self.root)
        self.kinds = {name: field.kind for name, field in self.fields.items()}
        for name in labels:
            if name not in self.fields:
                raise unknown("label", name, self.fields)
        self.labels: dict[str, int] = dict(labels)
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder, point the data root at {self.package}")

    @classmethod
    def for_tasks(cls, root: str | Path, tasks: Sequence[Task]) -> LabelFiles:
        """The labels that `tasks` are named after.

        Raises:
            UserError: also for a task that has no label here, or whose label is of another kind.
        """
        check_tasks({name: field.kind for name, field in cls.fields.items()}, tasks)
        return cls(root, {task.name: task.out_channels for task in tasks})

    @classmethod
    def all_of(cls, root: str | Path) -> LabelFiles:
        """Every label whose folders exist, with its published number of channels; `absent` holds the others."""
        source = cls(root, cls.channels)
        folders = {name: source._absent_folders(name) for name in source.labels}
        source.absent = {name: absent for name, absent in folders.items() if absent}
        source.keep_labels([name for name in source.labels if name not in source.absent])
        return source

    def list_name(self, split: str) -> str:
        return str(self._list(split))

    def has_split(self, split: str) -> bool:
        return split in self.splits and self._list(split).is_file()

    def listed(self, split: str) -> list[str]:
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        return read_ids(self._list(split))

    def missing(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        required = [name for name in self.labels if not self.fields[name].optional]
        return [(id_, " or ".join(names)) for id_, names, present in self._files(ids, required) if not present]

    def _files(self, ids: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, list[str], list[str]]]:
        """Of the image and of each file of these labels: id, the names that would do, and those that there are."""
        present = lru_cache(maxsize=None)(self._names)
        files = (file for name in labels for file in self.fields[name].files)
        for template in dict.fromkeys((self.image, *files)):
            for id_ in ids:
                names = [alternative.format(id=id_) for alternative in template.split("|")]
                yield (
                    id_,
                    names,
                    [name for name in names if name.rpartition("/")[2] in present(name.rpartition("/")[0])],
                )

    def read(self, id_: str, split: str | None = None) -> Sample:
        image = read_image(self._path(self.image, id_))
        sample: Sample = {"id": id_, "image": torch.from_numpy(image).permute(2, 0, 1)}
        for name in self.labels:
            paths, target = self._label(id_, name)
            if target is not None:
                check_size(paths[0], target, image, ": images are taken as stored, whatever EXIF data say")
                sample[name] = torch.from_numpy(np.ascontiguousarray(target))
        return sample

    def read_label(self, id_: str, name: str, split: str | None = None) -> Tensor | None:
        _, target = self._label(id_, name)
        return None if target is None else torch.from_numpy(np.ascontiguousarray(target))

    def _label(self, id_: str, name: str) -> tuple[list[Path], np.ndarray | None]:
        """The files of a label, and what they hold."""
        field = self.fields[name]
        paths = [self._path(template, id_) for template in field.files]
        if field.optional and not paths[0].exists():
            return paths, None
        return paths, field.read(self.labels[name], *paths)

    def _absent_folders(self, name: str) -> str:
        """Folders that a label needs and that do not exist, in words; an empty text if there are none."""
        absent = []
        for file in self.fields[name].files:
            folders = dict.fromkeys(alternative.rpartition("/")[0] for alternative in file.split("|"))
            if not any((self.root / folder).is_dir() for folder in folders):
                absent.append(" or ".join(f"{folder}/" for folder in folders))
        return " and ".join(absent)

    def _list(self, split: str) -> Path:
        return self.root / self.lists.format(split=split)

    def _names(self, folder: str) -> set[str]:
        path = self.root / folder
        return set(os.listdir(path)) if path.is_dir() else set()

    def _path(self, template: str, id_: str) -> Path:
        paths = [self.root / alternative.format(id=id_) for alternative in template.split("|")]
        return next((path for path in paths if path.exists()), paths[0])


def check_size(path: object, target: np.ndarray, image: np.ndarray, if_turned: str = "") -> None:
    """Refuse a target `[H, W]` or `[3, H, W]` whose size is not that of the image `[H, W, 3]`.

    Args:
        path: of the target, for the message.
        if_turned: what the message says more where the target has the size of the image on its side.
    """
    size, expected = list(target.shape[-2:]), list(image.shape[:2])
    if size != expected:
        note = if_turned if size == expected[::-1] else ""
        raise UserError(f"{path}: size {size} differs from the image's {expected}, bring both to one size{note}")


def read_ids(path: Path) -> list[str]:
    """A text file with one id per line; lines are stripped, empty ones left out, and ids may contain spaces.

    Raises:
        UserError: it cannot be read, or holds nothing.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # some editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason}), it lists the ids of the split") from error
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise UserError(f"{path}: the split is empty, list one id per line")
    return ids
