"""Apply a finished run's model to image files, in batches that are read while the model works."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from branchtune.data.decoding import read_image
from branchtune.data.transforms import Transform
from branchtune.errors import UserError, unknown
from branchtune.low_memory.precision import Precision
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.run.directory import load_settings
from branchtune.run.finished import load_model
from branchtune.run.inference import at_own_size, prepared, raw_outputs
from branchtune.run.prediction_folder import PredictionFolder
from branchtune.run.workbench import Workbench
from branchtune.shipping.load import read_model_config


@dataclass(frozen=True)
class Predicted:
    """What `predict` did.

    Attributes:
        written, present: images whose files were written, or were there already.
        skipped: for every image that could not be read, its name and the reason.
    """

    written: int
    present: int
    skipped: list[str]


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
) -> Predicted:
    """Write raw outputs and pictures of every image and task; an interrupted call goes on where it stopped.

    Args:
        run: a finished run's directory.
        images: files; at most two batches of them (per worker) are in memory at a time.
        out: the folder, see `PredictionFolder`.
        tasks: only these; the others are not computed. None: all.
        batch_size: images per pass of the model.
        workers: processes that read images.
        overwrite: also predict what is there already.
        low_memory: store the backbone's weights in this precision.

    Raises:
        UserError: the run has no model, its weights cannot be stored in that precision, a task does not exist, two
            images have one name, a number is too small, or the folder cannot be written.
    """
    config = load_settings(run).on_one_device().config
    for name in tasks or ():
        if name not in config.tasks:
            raise unknown("task", name, config.tasks)
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size={batch_size}, workers={workers}: at least 1 image and 0 workers")
    _check_names(images)
    bench = Workbench(config, reporter)
    model = load_model(run, bench, low_memory)
    wanted = list(model.tasks if tasks is None else tasks)
    hashes = dict(read_model_config(run / "model").hashes)
    if low_memory is not None:
        hashes["precision"] = low_memory
    folder = PredictionFolder(out, [model.tasks[name] for name in wanted], hashes, images, overwrite)
    todo = [path for path in images if not folder.has(path.stem)]
    files = _ImageFiles(todo, Transform({}, config.data.image_size, *bench.normalisation))
    loader = DataLoader(files, batch_size, num_workers=workers, collate_fn=list)
    skipped = []
    with reporter.track("predict", len(todo)) as advance:
        for batch in loader:
            skipped += [item for item in batch if isinstance(item, str)]
            read = [item for item in batch if not isinstance(item, str)]
            for stem, outputs in _outputs(model, read, wanted, bench.device):
                for name, value in outputs.items():
                    folder.write(stem, model.tasks[name], value)
            for _ in batch:
                advance()
    return Predicted(len(todo) - len(skipped), len(images) - len(todo), skipped)


class _ImageFiles(Dataset[Any]):
    """Name, tensor `[3, h, w]` as the model takes it and own size of each image; a text where it cannot be read."""

    def __init__(self, paths: Sequence[Path], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor, tuple[int, int]] | str:
        path = self.paths[index]
        try:
            pixels = read_image(path, upright=True)
        except UserError as error:
            return str(error)
        return path.stem, prepared(pixels, self.transform), (pixels.shape[0], pixels.shape[1])


def _outputs(
    model: MultiTaskModel,
    images: Sequence[tuple[str, Tensor, tuple[int, int]]],
    tasks: Collection[str],
    device: torch.device,
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Per image its name and what the model returns for it, maps at its own size: `[C, height, width]`, or `[C]`."""
    if not images:
        return
    raw = raw_outputs(model, torch.stack([image for _, image, _ in images]).to(device), tasks)
    for index, (stem, _, size) in enumerate(images):
        yield stem, {name: at_own_size(model.tasks[name], values[index], size) for name, values in raw.items()}


def _check_names(images: Sequence[Path]) -> None:
    """Refuse images whose results would overwrite each other."""
    names: dict[str, Path] = {}
    for path in images:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{other.name} and {path.name} would give files of one name: rename one of them")
