"""Apply a finished run's model to image files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from branchtune.atomic import write_bytes
from branchtune.data.decoding import read_image
from branchtune.data.transforms import Transform
from branchtune.decoders.resample import resize
from branchtune.errors import UserError, unknown
from branchtune.model import MultiTaskModel
from branchtune.progress import Reporter
from branchtune.report.colour import picture
from branchtune.run.directory import load_settings
from branchtune.run.finished import load_model
from branchtune.run.workbench import Workbench
from branchtune.tasks.task import Task


@torch.no_grad()
def predict(run: Path, images: Sequence[Path], out: Path, tasks: Sequence[str] | None, reporter: Reporter) -> list[str]:
    """Write raw outputs and pictures of every image and task.

    Returns:
        For every image that could not be read, its name and the reason.

    Raises:
        UserError: the run has no model, a task does not exist, or the folder cannot be written.
    """
    config = load_settings(run).config
    for name in tasks or ():
        if name not in config.tasks:
            raise unknown("task", name, config.tasks)
    _check_names(images)
    bench = Workbench(config, reporter)
    model = load_model(run, bench)
    transform = Transform({}, config.data.image_size, *bench.normalisation)
    _make_folder(out)
    skipped = []
    with reporter.track("predict", len(images)) as advance:
        for path in images:
            try:
                pixels = torch.from_numpy(read_image(path)).permute(2, 0, 1)
            except UserError as error:
                skipped.append(str(error))
            else:
                sample = transform({"id": path.stem, "image": pixels}, np.random.default_rng(0))
                image = sample["image"][None].to(bench.device)
                for name, output in _outputs(model, image, tasks, (pixels.shape[1], pixels.shape[2])).items():
                    _write(out, path.stem, model.tasks[name], output.cpu())
            advance()
    return skipped


def _outputs(
    model: MultiTaskModel, image: Tensor, tasks: Sequence[str] | None, size: tuple[int, int]
) -> dict[str, Tensor]:
    """What the model returns for one image `[1, 3, h, w]`, with maps at `size`: `[C, *size]`, or `[C]`.

    Maps are resized before they are activated, so that normals are of unit length at the new size too, and an
    activation of a user's own is applied once.
    """
    wanted = list(model.tasks) if tasks is None else list(tasks)
    features = model.backbone(image, wanted, {})
    outputs = {}
    for name in wanted:
        task, raw = model.tasks[name], model.decoders[name](features[name], (image.shape[2], image.shape[3]))
        outputs[name] = task.activate(resize(raw, size) if task.dense else raw)[0].float()
    return outputs


def _check_names(images: Sequence[Path]) -> None:
    """Refuse images whose results would overwrite each other."""
    names: dict[str, Path] = {}
    for path in images:
        other = names.setdefault(path.stem, path)
        if other != path:
            raise UserError(f"{other.name} and {path.name} would give files of one name: rename one of them")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}, choose another folder with --out") from error


def _write(out: Path, stem: str, task: Task, value: Tensor) -> None:
    array = io.BytesIO()
    np.save(array, value.numpy())
    write_bytes(out / f"{stem}.{task.name}.npy", array.getvalue())
    if task.dense:
        encoded = io.BytesIO()
        Image.fromarray(picture(task, value)).save(encoded, "PNG")
        write_bytes(out / f"{stem}.{task.name}.png", encoded.getvalue())
