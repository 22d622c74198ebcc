"""`dataset.yaml`: what a user's own data hold, and how a stored label becomes a target."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from branchtune.errors import UserError, unknown
from branchtune.ignored import IGNORED_CLASS
from branchtune.tasks.targets import MAX_DEPTH
from branchtune.tasks.task import Task
from branchtune.yaml_file import check_yaml

FILE = "dataset.yaml"
LabelKind = Literal["classes", "values", "depth", "normals"]
METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
UNIT_TOLERANCE = 0.1


@dataclass(frozen=True)
class Label:
    """One task of `dataset.yaml`.

    Args:
        kind: `classes` whole numbers, `values` one number per pixel, `depth`, `normals`.
        num_classes: of `classes`; or their names as a list.
        units: of `depth`: m, cm or mm; of `values`: any text, for the report.
        scale: what stored numbers are multiplied by, before units; 16-bit pictures often need one.
        range: smallest and largest value of `values` and `depth`, in their units (depth: metres).
        ignore: stored values that mean "not labelled"; null: 255 for `classes`, 0 for `depth`, nothing else.
        flip: axes of `normals` to negate, to arrive at x right, y down, z forward.
        partial: whether samples may lack this label.
        folder: of the files; null: the task's name.
        column: of a table; null: the task's name.
    """

    kind: LabelKind
    num_classes: int | list[str] | None = None
    units: str | None = None
    scale: float = 1.0
    range: tuple[float, float] | None = None
    ignore: list[float] | None = None
    flip: list[Literal["x", "y", "z"]] = field(default_factory=list)
    partial: bool = False
    folder: str | None = None
    column: str | None = None

    @property
    def channels(self) -> int:
        if self.kind == "classes":
            return len(self.num_classes) if isinstance(self.num_classes, list) else int(self.num_classes or 0)
        return 3 if self.kind == "normals" else 1

    @property
    def ignored(self) -> list[float]:
        if self.ignore is not None:
            return list(self.ignore)
        return {"classes": [float(IGNORED_CLASS)], "depth": [0.0]}.get(self.kind, [])

    def problem(self) -> str | None:
        """What is wrong with the declaration, or None."""
        if self.kind not in get_args(LabelKind):
            return str(unknown("kind", str(self.kind), get_args(LabelKind)))
        if self.kind == "classes" and not 2 <= self.channels <= IGNORED_CLASS:
            return f"num_classes must be from 2 to {IGNORED_CLASS}, or a list of that many names"
        if self.kind == "depth" and self.units not in (None, *METRES):
            return str(unknown("unit of depth", str(self.units), METRES))
        if not set(self.flip) <= {"x", "y", "z"}:
            return f"flip {self.flip}: name axes out of x, y and z"
        if self.range is not None and not (len(self.range) == 2 and self.range[0] < self.range[1]):
            return f"range {self.range}: give a smallest and a largest value"
        return None

    def decode(self, stored: np.ndarray, where: object) -> np.ndarray:
        """A stored array -> the target, `[H, W]` or `[3, H, W]`, with ignored pixels 255 or NaN.

        Raises:
            UserError: a shape or value that the declaration does not allow, with `where` in front.
        """
        if self.kind == "normals":
            return self._normals(stored, where)
        if stored.ndim == 3 and 1 in (stored.shape[0], stored.shape[-1]):
            stored = stored[0] if stored.shape[0] == 1 else stored[..., 0]
        if stored.ndim != 2 or stored.dtype.kind not in "biuf":
            raise UserError(f"{where}: {stored.dtype} {list(stored.shape)}, expected numbers [H, W]")
        ignored = np.isin(stored, self.ignored)
        if self.kind == "classes":
            wrong = ~ignored & ((stored < 0) | (stored >= self.channels) | (stored != np.floor(stored)))
            self._refuse(wrong, stored, where, f"0 to {self.channels - 1}, ignored {_listed(self.ignored)}")
            return np.where(ignored, IGNORED_CLASS, stored).astype(np.uint8)
        return self._numbers(stored.astype(np.float64), ignored, where)

    def _numbers(self, stored: np.ndarray, ignored: np.ndarray, where: object) -> np.ndarray:
        unknown_ = ignored | np.isnan(stored)
        if self.kind == "depth":
            unknown_ |= np.isinf(stored)
            values = stored * self.scale * METRES[self.units or "m"]
            low, high = self.range or (0.0, MAX_DEPTH)
            wrong = (values < low) | (values > high) | (values <= 0) | (values >= MAX_DEPTH)
            allowed = f"{low:g} to {high:g} metres, ignored {_listed(self.ignored)}"
        else:
            values = stored * self.scale
            low, high = self.range or (-math.inf, math.inf)
            wrong = np.isinf(values) | (values < low) | (values > high)
            allowed = f"{low:g} to {high:g}, ignored {_listed(self.ignored)}"
        self._refuse(wrong & ~unknown_, values, where, allowed)
        return np.where(unknown_, np.nan, values).astype(np.float32)

    def _normals(self, stored: np.ndarray, where: object) -> np.ndarray:
        if stored.ndim != 3 or 3 not in (stored.shape[0], stored.shape[-1]):
            raise UserError(f"{where}: shape {list(stored.shape)}, expected [H, W, 3] or [3, H, W]")
        vectors = stored if stored.shape[0] == 3 and stored.shape[-1] != 3 else np.moveaxis(stored, -1, 0)
        ignored = (vectors == 0).all(0) | np.isnan(vectors.astype(np.float64)).any(0)
        for value in self.ignored:
            ignored |= (vectors == value).all(0)
        values = vectors.astype(np.float64)
        if vectors.dtype == np.uint8:
            values = 2 * values / 255 - 1
        with np.errstate(invalid="ignore"):
            length = np.sqrt(np.square(values).sum(0))
            wrong = ~ignored & ~(np.abs(length - 1) <= UNIT_TOLERANCE)
        self._refuse(wrong, length, where, "a length of 1 (unit normals, as -1 to 1 or as 8-bit colours 2v/255-1)")
        values /= np.where(ignored, np.nan, length)
        for axis in self.flip:
            values["xyz".index(axis)] *= -1
        return values.astype(np.float32)

    def _refuse(self, wrong: np.ndarray, values: np.ndarray, where: object, allowed: str) -> None:
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UserError(
                f"{where}: value {values[wrong][0]:g} at row {row}, column {column} is outside the declared {allowed} "
                f"({wrong.mean():.1%} of the pixels), correct the file or {FILE}"
            )


@dataclass(frozen=True)
class Declaration:
    """The content of `dataset.yaml`.

    Args:
        tasks: the labels by name.
        images: folder of the images.
        splits: the list of ids of each split, relative to the file; for a table the name of its split.
        huggingface: arguments of `datasets.load_dataset`, for data that lie in a table; null for files.
        image: column of the images, in a table.
        id: column of the ids, in a table; null numbers the rows.
    """

    tasks: dict[str, Label]
    images: str = "images"
    splits: dict[str, str] = field(default_factory=lambda: {"train": "train.txt", "val": "val.txt"})
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
    check_yaml(path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    declaration = _build(Declaration, content, str(path))
    if not isinstance(declaration.tasks, Mapping) or not declaration.tasks:
        raise UserError(f"{path}: tasks is empty, declare at least one label")
    labels = {str(name): _build(Label, label, f"{path}: tasks.{name}") for name, label in declaration.tasks.items()}
    for name, label in labels.items():
        problem = label.problem()
        if problem:
            raise UserError(f"{path}: tasks.{name}: {problem}")
    if not isinstance(declaration.splits, dict) or "train" not in declaration.splits:
        raise UserError(f"{path}: splits names the lists of train, val and test; train is missing")
    for split in declaration.splits:
        if split not in ("train", "val", "test"):
            raise unknown(f"split in {path}", split, ("train", "val", "test"))
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
    for key, types in (("scale", (int, float)), ("ignore", (list, type(None))), ("range", (list, type(None)))):
        if key in values and not isinstance(values[key], types):
            raise UserError(f"{where}: {key} {values[key]!r} is not a number" + (" list" if key != "scale" else ""))
    return kind(**values)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values) or "none"
