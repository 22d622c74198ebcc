"""`dataset.yaml`: what a user's own data hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from branchtune.data.declared_checks import declaration_problem, label_problem
from branchtune.data.declared_label import FILE, Label
from branchtune.errors import UserError, unknown
from branchtune.tasks.task import Task
from branchtune.yaml_file import check_yaml

FILE_SPLITS = {"train": "train.txt", "val": "val.txt"}
TABLE_SPLITS = {"train": "train", "val": "validation"}


@dataclass(frozen=True)
class Declaration:
    """The content of `dataset.yaml`.

    Args:
        tasks: the labels by name.
        images: folder of the images.
        splits: the list of ids of each split, relative to the file; for a table the names of its splits, by default
            `{train: train, val: validation}`.
        huggingface: arguments of `datasets.load_dataset`, for data that lie in a table; null for files.
        image: column of the images, in a table.
        id: column of the ids, in a table; null numbers the rows.
    """

    tasks: dict[str, Label]
    images: str = "images"
    splits: dict[str, str] = field(default_factory=lambda: dict(FILE_SPLITS))
    huggingface: dict[str, Any] | None = None
    image: str = "image"
    id: str | None = None

    @property
    def class_names(self) -> dict[str, list[str]]:
        """Of the labels that list them."""
        return {name: label.num_classes for name, label in self.tasks.items() if isinstance(label.num_classes, list)}


def read_declaration(path: Path) -> Declaration:
    """Read `dataset.yaml`, given the file or its folder.

    Raises:
        UserError: it is missing, is not YAML, or declares what cannot be.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file, it declares the tasks of the data (see the README)")
    check_yaml(path, "it declares the tasks of the data (see the README)")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if content.get("huggingface") is not None:
        content.setdefault("splits", dict(TABLE_SPLITS))
    declaration = _build(Declaration, content, str(path))
    if declaration.tasks and not isinstance(declaration.tasks, Mapping):
        raise UserError(f"{path}: tasks: expected keys and values, found {declaration.tasks!r}")
    if not declaration.tasks:
        raise UserError(f"{path}: tasks is empty, declare at least one label")
    labels = {str(name): _build(Label, label, f"{path}: tasks.{name}") for name, label in declaration.tasks.items()}
    for name, label in labels.items():
        problem = label_problem(label)
        if problem:
            raise UserError(f"{path}: tasks.{name}: {problem}")
    problem = declaration_problem(vars(declaration))
    if problem:
        raise UserError(f"{path}: {problem}")
    return dataclasses.replace(declaration, tasks=labels)


def check_classes(labels: Mapping[str, Label], tasks: list[Task]) -> None:
    """Refuse a task whose number of classes is not the declared one."""
    for task in tasks:
        declared = labels[task.name].channels
        if task.target_kind == "classes" and task.out_channels != declared:
            raise UserError(
                f"task {task.name!r} has {task.out_channels} classes but {FILE} declares {declared}, set num_classes"
            )


def _build(kind: Any, content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: expected keys and values, found {content!r}")
    names = [f.name for f in dataclasses.fields(kind)]
    for key in content:
        if key not in names:
            raise unknown(f"key in {where}", str(key), names)
    for required in dataclasses.fields(kind):
        absent = required.default is dataclasses.MISSING and required.default_factory is dataclasses.MISSING
        if absent and required.name not in content:
            raise UserError(f"{where}: {required.name} is missing")
    values = dict(content)
    if isinstance(values.get("ignore"), int | float):
        values["ignore"] = [values["ignore"]]
    if isinstance(values.get("flip"), str):
        values["flip"] = list(values["flip"])
    return kind(**values)
