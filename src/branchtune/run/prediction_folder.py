"""The folder that predictions are written to: one or two files per image and task, each whole or absent."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from branchtune.atomic import write_bytes, write_json
from branchtune.errors import UserError
from branchtune.json_file import read_json
from branchtune.report.colour import picture
from branchtune.report.encoding import image_bytes, npy_bytes
from branchtune.tasks.task import Task

NAME = "predictions.json"


class PredictionFolder:
    """What one model predicts, image by image; what is there already is not made again.

    `predictions.json` says of which model and tasks the predictions are, and of which file (path, size, time) each one
    is: those of another file of the same name are deleted first, and so are another model's where they are overwritten.
    No file is deleted that does not have the name of one of these predictions.

    Args:
        path: made where it does not exist.
        tasks: that are predicted.
        hashes: of the model's files.
        images: what is predicted, of different names.
        overwrite: make everything again, also over another model's predictions.

    Raises:
        UserError: the folder cannot be written, or holds the predictions of another model.
    """

    def __init__(
        self,
        path: Path,
        tasks: Sequence[Task],
        hashes: Mapping[str, str],
        images: Sequence[Path],
        overwrite: bool = False,
    ) -> None:
        self.path, self.tasks, self.overwrite = path, list(tasks), overwrite
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
        known_tasks = before.get("tasks", names)
        self._delete((s for s in known if not same or known[s] != sources.get(s, known[s])), known_tasks)
        content = {
            "format": 1,
            "model": dict(hashes),
            "tasks": sorted({*(known_tasks if same else ()), *names}),
            "images": {**(known if same else {}), **sources},
        }
        write_json(note, content)

    def _delete(self, stems: Iterable[str], tasks: Collection[str]) -> None:
        for stem, task, ending in itertools.product(stems, tasks, ("npy", "png")):
            (self.path / f"{stem}.{task}.{ending}").unlink(missing_ok=True)

    def has(self, stem: str) -> bool:
        """Whether all files of the image of this name are there."""
        return not self.overwrite and all(file.exists() for task in self.tasks for file in self._files(stem, task))

    def write(self, stem: str, task: Task, value: Tensor) -> None:
        """The raw output `[C, H, W]` or `[C]` as an array, and a map's picture."""
        raw, *pictures = self._files(stem, task)
        write_bytes(raw, npy_bytes(value))
        for file in pictures:
            write_bytes(file, image_bytes(picture(task, value), "PNG"))

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
