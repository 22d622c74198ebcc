"""The folder that predictions are written to: files per image and task and a sheet per image, each whole or absent."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from branchtune.atomic import write_bytes, write_json
from branchtune.errors import UserError
from branchtune.json_file import read_json
from branchtune.report.colour import picture
from branchtune.report.encoding import image_bytes, npy_bytes
from branchtune.report.prediction_sheet import Layout, panel_of, prediction_sheet
from branchtune.tasks.task import Task

NAME = "predictions.json"
SHEET = "sheet"


class PredictionFolder:
    """What one model predicts, image by image; what is there already is not made again.

    `predictions.json` says of which model and tasks the predictions are, of which file (path, size, time) each one is,
    and what each sheet shows: those of another file of the same name are deleted first, and so are another model's
    where they are overwritten, and sheets that show something else. No file is deleted that does not have the name of
    one of these predictions.

    Args:
        path: made where it does not exist.
        tasks: that are predicted.
        hashes: of the model's files.
        images: what is predicted, of different names.
        overwrite: make everything again, also over another model's predictions.
        sheet: layout of the sheets, None for no sheets.

    Raises:
        UserError: the folder cannot be written, holds another model's predictions, or has a file of a sheet's name.
    """

    def __init__(
        self,
        path: Path,
        tasks: Sequence[Task],
        hashes: Mapping[str, str],
        images: Sequence[Path],
        overwrite: bool = False,
        sheet: Layout | None = None,
    ) -> None:
        self.path, self.tasks, self.overwrite, self.layout = path, list(tasks), overwrite, sheet
        note = path / NAME
        before = _read(note) if note.exists() else {"model": dict(hashes), "images": {}}
        same = before["model"] == dict(hashes)
        if not same and not overwrite:
            raise UserError(
                f"{path} holds predictions of another model, or with weights in another precision: choose another "
                "folder, or --overwrite them"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror}, choose another folder with --out") from error
        sources = {image.stem: _source(image) for image in images}
        known, names = before["images"], [task.name for task in tasks]
        known_tasks, sheets = before.get("tasks", names), before.get("sheets", {})
        shown = {stem: [sheet, *names] for stem in sources if sheet is not None}
        self._check_free(stem for stem in shown if stem not in sheets)
        gone = [stem for stem in known if not same or known[stem] != sources.get(stem, known[stem])]
        self._delete(gone, known_tasks)
        for stem in sheets:
            if stem in gone or sheets[stem] != shown.get(stem, sheets[stem]):
                self._sheet(stem).unlink(missing_ok=True)
        content = {
            "format": 1,
            "model": dict(hashes),
            "tasks": sorted({*(known_tasks if same else ()), *names}),
            "images": {**(known if same else {}), **sources},
            "sheets": {**{stem: sheets[stem] for stem in sheets if stem not in gone}, **shown},
        }
        write_json(note, content)

    def _delete(self, stems: Iterable[str], tasks: Collection[str]) -> None:
        for stem, task, ending in itertools.product(stems, tasks, ("npy", "png")):
            (self.path / f"{stem}.{task}.{ending}").unlink(missing_ok=True)

    def _check_free(self, stems: Iterable[str]) -> None:
        for stem in stems:
            if self._sheet(stem).exists():
                raise UserError(
                    f"{self._sheet(stem)} is there and was not made by predict: rename it, choose another folder, or "
                    "--sheet none"
                )

    def has(self, stem: str) -> bool:
        """Whether all files of the image of this name are there."""
        files = [file for task in self.tasks for file in self._files(stem, task)]
        files += [] if self.layout is None else [self._sheet(stem)]
        return not self.overwrite and all(file.exists() for file in files)

    def write(self, stem: str, outputs: Mapping[str, Tensor], image: NDArray[np.uint8] | None = None) -> None:
        """Raw outputs `[C, H, W]` or `[C]` as arrays, pictures of maps, and the sheet.

        Args:
            image: for the sheet, made by `prediction_sheet.small`.
        """
        panels = []
        for task in self.tasks:
            value = outputs[task.name]
            raw, *pictures = self._files(stem, task)
            write_bytes(raw, npy_bytes(value))
            coloured = picture(task, value) if pictures else None
            if coloured is not None:
                write_bytes(pictures[0], image_bytes(coloured, "PNG"))
            if self.layout is not None:
                panels.append(panel_of(task, value, coloured))
        if self.layout is not None and image is not None:
            write_bytes(self._sheet(stem), image_bytes(prediction_sheet(image, panels, self.layout), "PNG"))

    def _sheet(self, stem: str) -> Path:
        return self.path / f"{stem}.{SHEET}.png"

    def _files(self, stem: str, task: Task) -> list[Path]:
        endings = ("npy", "png") if task.dense else ("npy",)
        return [self.path / f"{stem}.{task.name}.{ending}" for ending in endings]


def _read(note: Path) -> dict[str, Any]:
    way = "choose another folder, or delete it"
    content = read_json(note, missing=way, damaged=way)
    if not isinstance(content, dict) or not {"model", "images"} <= content.keys():
        raise UserError(f"{note} is damaged: {way}")
    return content


def _source(image: Path) -> list[Any]:
    state = image.stat()
    return [str(image.resolve()), state.st_size, state.st_mtime_ns]
