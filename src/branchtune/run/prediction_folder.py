"""The folder that predictions are written to: files per image and task and a sheet per image, each whole or absent."""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchtune.atomic import write_bytes, write_json
from branchtune.errors import UserError
from branchtune.json_file import read_json
from branchtune.pictures.colour import picture
from branchtune.pictures.encoding import image_bytes
from branchtune.pictures.prediction_sheet import Layout, prediction_sheet, tile_of
from branchtune.run.array_files import write_array, write_scores
from branchtune.run.inference import ImageOutput
from branchtune.tasks.task import Task

NAME = "predictions.json"
SHEET = "sheet"
SCORES = "scores"
FORMAT = 2  # 1 held the model's outputs instead of predictions


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
        scores: also of the scores of maps of classes.

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
        scores: bool = False,
    ) -> None:
        self.path, self.tasks, self.overwrite, self.layout, self.scores = path, list(tasks), overwrite, sheet, scores
        note = path / NAME
        before = _read(note) if note.exists() else {"model": dict(hashes), "images": {}}
        same = before["model"] == dict(hashes)
        if not same and not overwrite:
            raise UserError(
                f"{path} holds predictions of another model, or with weights in another precision: choose another "
                "folder, or --overwrite them"
            )
        check_folder(path)
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
            "format": FORMAT,
            "model": dict(hashes),
            "tasks": sorted({*(known_tasks if same else ()), *names}),
            "images": {**(known if same else {}), **sources},
            "sheets": {**{stem: sheets[stem] for stem in sheets if stem not in gone}, **shown},
        }
        write_json(note, content)

    def _delete(self, stems: Iterable[str], tasks: Collection[str]) -> None:
        for stem, task, ending in itertools.product(stems, tasks, ("npy", "png", f"{SCORES}.npy")):
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
        files = [self._file(stem, task, ending) for task in self.tasks for ending in self._endings(task)]
        files += [] if self.layout is None else [self._sheet(stem)]
        return not self.overwrite and all(file.exists() for file in files)

    def write(self, stem: str, outputs: Sequence[ImageOutput], image: NDArray[np.uint8] | None = None) -> None:
        """Predictions as arrays, pictures of maps, scores where asked for, and the sheet.

        Args:
            outputs: of all tasks in their order; one after the other is brought to the image's size.
            image: for the sheet, made by `prediction_sheet.small`.
        """
        tiles = []
        for output in outputs:
            task, value, coloured = output.task, output.prediction(), None
            endings = self._endings(task)
            write_array(self._file(stem, task, "npy"), value)
            if f"{SCORES}.npy" in endings:
                write_scores(self._file(stem, task, f"{SCORES}.npy"), output)
            if "png" in endings:
                coloured = picture(task, value)
                write_bytes(self._file(stem, task, "png"), image_bytes(coloured, "PNG"))
            if self.layout is not None:
                tiles.append(tile_of(task, value, coloured))
        if self.layout is not None and image is not None:
            write_bytes(self._sheet(stem), image_bytes(prediction_sheet(image, tiles, self.layout), "PNG"))

    def _sheet(self, stem: str) -> Path:
        return self.path / f"{stem}.{SHEET}.png"

    def _file(self, stem: str, task: Task, ending: str) -> Path:
        return self.path / f"{stem}.{task.name}.{ending}"

    def _endings(self, task: Task) -> list[str]:
        scored = self.scores and task.target_kind == "classes"
        return ["npy", *(["png"] if task.dense else []), *([f"{SCORES}.npy"] if scored else [])]


def check_folder(path: Path) -> None:
    """Make the folder, and see whether it can be written to, before the work begins.

    Raises:
        UserError: it cannot.
    """
    way = "choose another folder with --out"
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file, and predictions go into a folder: {way}")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}, {way}") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {path}: it is read-only for you, {way}")


def _read(note: Path) -> dict[str, Any]:
    way = "choose another folder, or delete it"
    content = read_json(note, missing=way, damaged=way)
    if not isinstance(content, dict) or not {"model", "images"} <= content.keys():
        raise UserError(f"{note} is damaged: {way}")
    if content.get("format") != FORMAT:
        raise UserError(f"{note} is of another version of branchtune: {way}")
    if not _names_files_here(content):
        raise UserError(f"{note} is damaged: {way}")
    return content


def _names_files_here(content: Mapping[str, Any]) -> bool:
    """Whether everything that files are named after, and deleted by, is the name of a file and no path."""
    tables = [content["model"], content["images"], content.get("sheets", {})]
    tasks = content.get("tasks", [])
    if not all(isinstance(table, dict) for table in tables) or not isinstance(tasks, list):
        return False
    names = [*content["images"], *content.get("sheets", {}), *tasks]
    return all(isinstance(name, str) and name and os.path.basename(name) == name for name in names)


def _source(image: Path) -> list[Any]:
    try:
        state = image.stat()
    except OSError:  # such as of a link to nothing; reading it says why
        return [str(image), 0, 0]
    return [str(image.resolve()), state.st_size, state.st_mtime_ns]
