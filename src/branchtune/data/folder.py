"""The folder layout: a user's own images and labels, declared in `dataset.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from branchtune.data.declared import check_classes, read_declaration
from branchtune.data.declared_label import FILE, Label
from branchtune.data.decoding import read_array, read_values_image
from branchtune.data.label_files import Field, LabelFiles
from branchtune.data.source import check_tasks
from branchtune.tasks.task import Task

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
LABELS = (".png", ".npy", ".tif", ".tiff")


def _read(label: Label, channels: int, path: Path) -> np.ndarray:
    stored = read_array(path) if path.suffix == ".npy" else read_values_image(path)
    return label.decode(stored, path)


class FolderFiles(LabelFiles):
    """Images in one folder, labels in one folder per task, and `dataset.yaml`.

    ```
    dataset.yaml
    train.txt  val.txt                one id per line; other names, and a test list, are declared (`splits`)
    images/<id>.jpg                   or .jpeg .png .webp .bmp .tif .tiff
    depth/<id>.npy                    or .png .tif .tiff, one folder per task
    ```

    ```yaml
    tasks:
      semseg:  {kind: classes, num_classes: [road, car, person], ignore: 255}
      depth:   {kind: depth, units: mm, ignore: 0}
      normals: {kind: normals, flip: [y, z]}
      height:  {kind: values, units: metres above ground, range: [0, 50], partial: true}
    ```

    Args:
        root: the folder.
        labels: number of output channels of the labels to read, by name.
    """

    package: ClassVar[str] = f"a folder with {FILE}"

    def __init__(self, root: str | Path, labels: Mapping[str, int] | None = None) -> None:
        self.declaration = read_declaration(Path(root))
        declared = self.declaration.tasks
        self.fields = {
            name: Field(label.kind, partial(_read, label), (_any(label.folder or name, LABELS),), label.partial)
            for name, label in declared.items()
        }
        self.image = _any(self.declaration.images, IMAGES)
        self.class_names = self.declaration.class_names
        self.splits = tuple(self.declaration.splits)
        folder = Path(root).parent if Path(root).is_file() else root
        super().__init__(
            folder, {name: label.channels for name, label in declared.items()} if labels is None else labels
        )

    @classmethod
    def for_tasks(cls, root: str | Path, tasks: Sequence[Task]) -> LabelFiles:
        declared = read_declaration(Path(root)).tasks
        check_tasks({name: label.kind for name, label in declared.items()}, tasks)
        check_classes(declared, list(tasks))
        return cls(root, {task.name: task.out_channels for task in tasks})

    @classmethod
    def all_of(cls, root: str | Path) -> LabelFiles:
        return cls(root)

    def ambiguous(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        return [(id_, " and ".join(found)) for id_, _, found in self._files(ids, list(self.labels)) if len(found) > 1]

    def has_split(self, split: str) -> bool:
        return split in self.splits  # a declared list that is not there is a mistake

    def _list(self, split: str) -> Path:
        return self.root / self.declaration.splits[split]


def _any(folder: str, suffixes: Sequence[str]) -> str:
    return "|".join(f"{folder}/{{id}}{suffix}" for suffix in suffixes)
