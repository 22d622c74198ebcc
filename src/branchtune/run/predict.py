"""Apply a finished run's model to image files, in batches that are read while the model works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from branchtune.atomic import many_files
from branchtune.data.decoding import read_image
from branchtune.data.transforms import Transform
from branchtune.errors import UserError, unknown
from branchtune.low_memory.precision import Precision
from branchtune.pictures.prediction_sheet import Layout, small
from branchtune.progress import Reporter
from branchtune.run.array_files import too_large
from branchtune.run.directory import load_settings, model_folder
from branchtune.run.finished import load_model
from branchtune.run.inference import ImageOutput, prepared, raw_outputs
from branchtune.run.prediction_folder import SCORES, SHEET, PredictionFolder, check_folder
from branchtune.run.workbench import Workbench
from branchtune.shipping.load import read_model_config
from branchtune.tasks.task import Task


@dataclass(frozen=True)
class Predicted:
    """What `predict` did.

    Attributes:
        written, present: images whose files were written, or were there already.
        skipped: for every image that could not be read, or has too many scores, its name and the reason.
        replaced: images of the same names, at another path or changed since, whose files were deleted.
    """

    written: int
    present: int
    skipped: list[str]
    replaced: int


@torch.no_grad()
def predict(
    run: Path,
    images: Sequence[Path],
    out: Path,
    tasks: Sequence[str] | None,
    reporter: Reporter,
    *,
    batch_size: int = 8,
    workers: int = 0,
    overwrite: bool = False,
    low_memory: Precision | None = None,
    sheet: Layout | None = "overlay",
    scores: bool = False,
) -> Predicted:
    """Write what `Task.prediction` gives and a picture of it for every image and task, and a sheet per image.

    An interrupted call goes on where it stopped.

    Args:
        run: a finished run's directory.
        images: files; at most two batches of them (per worker) are in memory at a time.
        out: the folder, see `PredictionFolder`.
        tasks: only these; the others are not computed. None: all.
        batch_size: images per pass of the model.
        workers: processes that read images.
        overwrite: also predict what is there already.
        low_memory: store the backbone's weights in this precision.
        sheet: layout of the sheets, see `prediction_sheet`; None for no sheets.
        scores: also write the scores of every class that maps of classes were chosen by.

    Raises:
        UserError: the run has no model, its weights cannot be stored in that precision, a task does not exist, two
            images have one name, a number is too small, the folder cannot be written, no task predicts maps of classes
            to write scores of, or a task has the name of another sort of file ("sheet", "scores").
    """
    config, saved = load_settings(run).on_one_device().config, model_folder(run)
    for name in tasks or ():
        if name not in config.tasks:
            raise unknown("task", name, config.tasks)
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size={batch_size}, workers={workers}: at least 1 image and 0 workers")
    if sheet is not None and SHEET in config.tasks:
        raise UserError(f"task {SHEET!r} has the name of the sheets' files: leave the sheets out with --sheet none")
    asked = [task for name, task in config.tasks.items() if tasks is None or name in tasks]
    scored = [task for task in asked if task.target_kind == "classes"] if scores else []
    if scores and SCORES in config.tasks:
        raise UserError(f"task {SCORES!r} has the name of the files of scores: leave --scores out")
    if scores and not scored:
        raise UserError(f"--scores: none of {', '.join(task.name for task in asked)} predicts a map of classes")
    _check_names(images)
    check_folder(out)
    bench = Workbench(config, reporter)
    model = load_model(run, bench, low_memory)
    wanted = list(model.tasks if tasks is None else tasks)
    hashes = dict(read_model_config(saved).hashes)
    if low_memory is not None:
        hashes["precision"] = low_memory
    folder = PredictionFolder(out, [model.tasks[name] for name in wanted], hashes, images, overwrite, sheet, scores)
    todo = [path for path in images if not folder.has(path.stem)]
    files = _ImageFiles(todo, bench.image_transform, sheet is not None, scored)
    loader = DataLoader(files, batch_size, num_workers=workers, collate_fn=list)
    skipped = []
    with reporter.track("predict", len(todo)) as advance, many_files(out):
        for batch in loader:
            skipped += [item for item in batch if isinstance(item, str)]
            read = [item for item in batch if not isinstance(item, str)]
            raw = raw_outputs(model, torch.stack([r.image for r in read]), wanted) if read else {}
            for index, item in enumerate(read):
                outputs = [ImageOutput(model.tasks[name], raw[name][index], item.size) for name in wanted]
                folder.write(item.stem, outputs, item.small)
            for _ in batch:
                advance()
    return Predicted(len(todo) - len(skipped), len(images) - len(todo), skipped, folder.replaced)


class _Read(NamedTuple):
    """An image as it was read: its name, `[3, h, w]` as the model takes it, own height and width, and for the sheet."""

    stem: str
    image: Tensor
    size: tuple[int, int]
    small: NDArray[np.uint8] | None


class _ImageFiles(Dataset[Any]):
    """Each image, or a text where it cannot be read, or has too many scores of the tasks `scored`."""

    def __init__(self, paths: Sequence[Path], transform: Transform, with_small: bool, scored: Sequence[Task]) -> None:
        self.paths, self.transform, self.with_small, self.scored = paths, transform, with_small, scored

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> _Read | str:
        path = self.paths[index]
        try:
            pixels = read_image(path, upright=True)
        except UserError as error:
            return str(error)
        size = (pixels.shape[0], pixels.shape[1])
        if reason := too_large(self.scored, size):
            return f"{path}: {reason}"
        return _Read(path.stem, prepared(pixels, self.transform), size, small(pixels) if self.with_small else None)


def _check_names(images: Sequence[Path]) -> None:
    """Refuse images whose results would overwrite each other."""
    names: dict[str, Path] = {}
    for path in images:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{other.name} and {path.name} would give files of one name: rename one of them")
