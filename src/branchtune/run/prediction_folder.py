"""The folder that predictions are written to: files per image and task and a sheet per image, each whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchtune.atomic import write_bytes
from branchtune.errors import UserError
from branchtune.pictures.colour import picture
from branchtune.pictures.encoding import image_bytes
from branchtune.pictures.prediction_sheet import Layout, prediction_sheet, tile_of
from branchtune.run.array_files import write_array, write_scores
from branchtune.run.inference import ImageOutput
from branchtune.run.prediction_record import PredictionRecord
from branchtune.tasks.task import Task

SHEET = "sheet"
SCORES = "scores"
_SHEET_FILE = f"{SHEET}.png"


class PredictionFolder:
    """What one model predicts, image by image; what is there already is not made again.

    A `PredictionRecord` names the files, of which model and of which image (path, size, time) they are, and what each
    sheet shows: those of another image of the same name are deleted first, and so are another model's where they are
    overwritten, and sheets that show something else. A file that it does not name is never deleted, replaced or taken
    for a prediction.

    Args:
        path: made where it does not exist.
        tasks: that are predicted.
        hashes: of the model's files.
        images: what is predicted, of different names.
        overwrite: make everything again, also over another model's predictions.
        sheet: layout of the sheets, None for no sheets.
        scores: also of the scores of maps of classes.

    Raises:
        UserError: the folder cannot be written, holds another model's predictions, or has a file of somebody else under
            the name of one that would be written.

    Attributes:
        replaced: how many images' predictions were deleted, which were of another image of the same name.
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
        before = PredictionRecord.read(path) or PredictionRecord(dict(hashes))
        same = before.model == dict(hashes)
        if not same and not overwrite:
            raise UserError(
                f"{path} holds predictions of another model, or with weights in another precision: choose another "
                "folder, or --overwrite them"
            )
        check_folder(path)
        sources = {image.stem: _source(image) for image in images}
        files = self._files()
        for stem in sources:
            self._check_free(stem, set(files) - set(before.files.get(stem, ())))
        gone = {stem for stem, source in before.images.items() if not same or source != sources.get(stem, source)}
        self.replaced = len(gone & before.files.keys()) if same else 0
        kept = before.without(gone)
        shown = {stem: [sheet, *(task.name for task in tasks)] for stem in sources if sheet is not None}
        changed = {stem for stem in shown if kept.sheets.get(stem) != shown[stem]}
        self._delete((stem, ending) for stem in gone for ending in before.files.get(stem, ()))
        self._delete((stem, _SHEET_FILE) for stem in changed)
        PredictionRecord(
            dict(hashes),
            {**kept.images, **sources},
            {**kept.files, **{stem: sorted({*kept.files.get(stem, ()), *files}) for stem in sources}},
            {**kept.sheets, **shown},
        ).write(path)

    def _delete(self, files: Iterable[tuple[str, str]]) -> None:
        for stem, ending in files:
            self._path(stem, ending).unlink(missing_ok=True)

    def _check_free(self, stem: str, endings: Iterable[str]) -> None:
        for ending in sorted(endings):
            path = self._path(stem, ending)
            if os.path.lexists(path):
                way = "choose another folder, or --sheet none" if ending == _SHEET_FILE else "or choose another folder"
                raise UserError(f"{path} is there and was not made by predict: rename it, {way}")

    def has(self, stem: str) -> bool:
        """Whether all files of the image of this name are there."""
        return not self.overwrite and all(self._path(stem, ending).exists() for ending in self._files())

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
            write_array(self._path(stem, f"{task.name}.npy"), value)
            if f"{SCORES}.npy" in endings:
                write_scores(self._path(stem, f"{task.name}.{SCORES}.npy"), output)
            if "png" in endings:
                coloured = picture(task, value)
                write_bytes(self._path(stem, f"{task.name}.png"), image_bytes(coloured, "PNG"))
            if self.layout is not None:
                tiles.append(tile_of(task, value, coloured))
        if self.layout is not None and image is not None:
            sheet = prediction_sheet(image, tiles, self.layout)
            write_bytes(self._path(stem, _SHEET_FILE), image_bytes(sheet, "PNG"))

    def _path(self, stem: str, ending: str) -> Path:
        return self.path / f"{stem}.{ending}"

    def _files(self) -> list[str]:
        """What the names of an image's files end with."""
        arrays = [f"{task.name}.{ending}" for task in self.tasks for ending in self._endings(task)]
        return arrays if self.layout is None else [*arrays, _SHEET_FILE]

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


def _source(image: Path) -> list[Any]:
    try:
        state = image.stat()
    except OSError:  # such as of a link to nothing; reading it says why
        return [str(image), 0, 0]
    return [str(image.resolve()), state.st_size, state.st_mtime_ns]
