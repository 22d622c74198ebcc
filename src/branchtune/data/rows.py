"""Tables with a column of images and one per label, as the `datasets` package of Hugging Face reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from branchtune.data.declared import Declaration, check_classes, read_declaration
from branchtune.data.declared_label import FILE
from branchtune.data.decoding import as_rgb, undecodable
from branchtune.data.label_files import check_size
from branchtune.data.source import Source, check_tasks
from branchtune.data.transforms import Sample
from branchtune.errors import UserError, unknown
from branchtune.tasks.task import Task


class Rows(Source):
    """Rows of images and labels, declared as in `dataset.yaml`.

    Args:
        tables: the rows of every split: anything with `len` and an integer index that gives a dictionary of PIL images
            or arrays, such as a `datasets.Dataset`.
        declaration: columns and labels.
        labels: number of output channels of the labels to read, by name; None for all.
        place: what messages call the data.

    Raises:
        UserError: a column does not exist.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        declaration: Declaration,
        labels: Mapping[str, int] | None = None,
        place: str = "the table",
    ) -> None:
        self.tables, self.declaration, self.place = dict(tables), declaration, place
        self.kinds = {name: label.kind for name, label in declaration.tasks.items()}
        declared = {name: label.channels for name, label in declaration.tasks.items()}
        self.labels: dict[str, int] = declared if labels is None else dict(labels)
        self.class_names = declaration.class_names
        self._columns = {name: declaration.tasks[name].column or name for name in self.labels}
        for table in self.tables.values():
            for column in (declaration.image, *self._columns.values(), *([declaration.id] if declaration.id else [])):
                known = _column_names(table)
                if known and column not in known:
                    raise unknown(f"column of {place}", column, known)
        self._listed = {split: self._ids(split) for split in self.tables}
        self._rows: dict[str, dict[str, int]] = {split: {} for split in self.tables}
        for split, ids in self._listed.items():
            for row, id_ in enumerate(ids):
                self._rows[split].setdefault(id_, row)  # listed twice: the first is the one that is kept

    @classmethod
    def load(cls, root: str | Path, tasks: Sequence[Task] | None = None) -> Rows:
        """The data set that a `dataset.yaml` with the key `huggingface` names; `tasks` None for all labels."""
        declaration = read_declaration(Path(root))
        labels = None
        if tasks is not None:
            check_tasks({name: label.kind for name, label in declaration.tasks.items()}, tasks)
            check_classes(declaration.tasks, list(tasks))
            labels = {task.name: task.out_channels for task in tasks}
        place = str((declaration.huggingface or {}).get("path", root))
        rows = cls(load_tables(declaration, Path(root)), declaration, labels, place)
        wanted = [column for column in (declaration.image, declaration.id, *rows._columns.values()) if column]
        # Of the others nothing is decoded, nor has it to be whole.
        rows.tables = {split: table.select_columns(wanted) for split, table in rows.tables.items()}
        return rows

    def has_split(self, split: str) -> bool:
        return split in self.tables

    def listed(self, split: str) -> list[str]:
        if split not in self.tables:
            raise unknown("split", split, self.tables)
        if not self._listed[split]:
            raise UserError(f"{self.place}: split {split!r} has no rows")
        return list(self._listed[split])

    def list_name(self, split: str) -> str:
        return f"{self.place}, split {split!r}"

    def missing(self, ids: Sequence[str]) -> list[tuple[str, str]]:
        return []  # an empty cell shows when the row is read

    def read(self, id_: str, split: str | None = None) -> Sample:
        where, row = self._row(id_, split)
        image = _image(row.get(self.declaration.image), f"{where}, column {self.declaration.image!r}")
        sample: Sample = {"id": id_, "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))}
        for name in self.labels:
            target = self._target(where, row, name)
            if target is not None:
                check_size(f"{where}, column {self._columns[name]!r}", target, image)
                sample[name] = torch.from_numpy(np.ascontiguousarray(target))
        return sample

    def read_label(self, id_: str, name: str, split: str | None = None) -> Tensor | None:
        target = self._target(*self._row(id_, split), name)
        return None if target is None else torch.from_numpy(np.ascontiguousarray(target))

    def _row(self, id_: str, split: str | None) -> tuple[str, Mapping[str, Any]]:
        """What messages call the row of an id, and its cells."""
        if split is None:
            split = next(name for name in self.split_names if id_ in self._rows.get(name, ()))
        number = self._rows[split][id_]
        where = f"{self.place}, row {number} of {split!r}"
        try:
            return where, self.tables[split][number]
        except Exception as error:  # whatever the reader of the table raises on a damaged cell
            raise undecodable(where + _damaged(self.tables[split], number), error) from error

    def _target(self, where: str, row: Mapping[str, Any], name: str) -> np.ndarray | None:
        label, column = self.declaration.tasks[name], self._columns[name]
        cell, place = row.get(column), f"{where}, column {column!r}"
        if cell is None and label.partial:
            return None
        if cell is None:
            raise UserError(f"{where}: column {column!r} is empty, fill it or declare the label as partial")
        return label.decode(_array(cell, place), place)

    def _ids(self, split: str) -> list[str]:
        table, column = self.tables[split], self.declaration.id
        if column is None:
            return [f"{split}-{row:06d}" for row in range(len(table))]
        values = table[column] if _column_names(table) else [row[column] for row in table]
        return [str(value) for value in values]


def load_tables(declaration: Declaration, root: Path) -> dict[str, Any]:
    """Every declared split through `datasets.load_dataset`; `data_files` are relative to the folder of the declaration.

    Raises:
        UserError: the `datasets` package is absent, or cannot load the data.
    """
    arguments = dict(declaration.huggingface or {})
    if "path" not in arguments:
        raise UserError(
            f"{root}: huggingface.path is missing, name a data set of the hub, or `parquet` for local files"
        )
    try:
        import datasets
    except ImportError as error:
        raise UserError("reading Hugging Face data needs the datasets package: pip install 'branchtune[hf]'") from error
    folder = root if root.is_dir() else root.parent
    if "data_files" in arguments:
        arguments["data_files"] = _absolute(arguments["data_files"], folder)
    tables = {}
    for split, name in declaration.splits.items():
        try:
            tables[split] = datasets.load_dataset(**arguments, split=name)
        except Exception as error:  # of the network, the hub, the cache, the reader
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"{arguments['path']}: split {name!r} cannot be loaded ({reason}), correct splits in {FILE} or the data"
            ) from error
    return tables


def _absolute(files: Any, folder: Path) -> Any:
    if isinstance(files, Mapping):
        return {key: _absolute(value, folder) for key, value in files.items()}
    if isinstance(files, list):
        return [_absolute(value, folder) for value in files]
    return files if "://" in str(files) else str(folder / str(files))


def _column_names(table: Any) -> list[str]:
    return list(getattr(table, "column_names", None) or [])


def _damaged(table: Any, row: int) -> str:
    """`, column 'name'` of the first cell of a row that cannot be decoded, where a table can be read by columns."""
    for column in _column_names(table):
        try:
            table.select_columns([column])[row]
        except Exception:  # whatever the reader of the table raises
            return f", column {column!r}"
    return ""


def _array(cell: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(cell)
    except ValueError as error:  # nested lists that form no rectangle
        raise UserError(f"{where}: rows of different lengths, make them equally long") from error


def _image(cell: Any, where: str) -> np.ndarray:
    """A PIL image or an array -> uint8 or float32 in [0, 1], `[H, W, 3]`."""
    if isinstance(cell, Image.Image):
        try:
            return as_rgb(cell)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
    if cell is None:
        raise UserError(f"{where}: is empty, a sample needs an image")
    pixels = _array(cell, where)
    if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.shape[-1] != 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype.kind not in "uif":
        raise UserError(f"{where}: {pixels.dtype} {list(pixels.shape)}, expected a picture, [H, W, 3] or [3, H, W]")
    low, high = pixels.min(initial=0), pixels.max(initial=0)
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:
        return pixels.astype(np.float32)
    if pixels.dtype.kind != "f" and low >= 0 and high <= 255:
        return pixels.astype(np.uint8)
    raise UserError(f"{where}: values from {low:g} to {high:g}, expected 0 to 255, or floats from 0 to 1")
