"""The images that a model does best and worst on, with all tasks' targets, predictions and errors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from branchtune.backbone.check import placement
from branchtune.batch import read_batch, read_images
from branchtune.errors import UserError, reason_of
from branchtune.ignored import IGNORED_CLASS
from branchtune.model import MultiTaskModel
from branchtune.pictures.colour import class_colours, error_picture, picture, target_picture, value_limits
from branchtune.progress import Reporter
from branchtune.report.page.error_map import error_map, error_unit, written
from branchtune.report.page.run_data import RunData
from branchtune.report.page.svg import short
from branchtune.run.directory import load_settings
from branchtune.run.finished import load_model
from branchtune.run.inference import pixels_of
from branchtune.run.workbench import Workbench
from branchtune.tasks.task import Task

LOOKED_AT = 64
SHOWN = 3

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Panel:
    """One task on one image: pictures `[H, W, 3]`, or words for a task with one label per image; None without label.

    Attributes:
        loss: of this image, or None.
    """

    target: Picture | str | None
    prediction: Picture | str
    error: Picture | str | None
    loss: float | None


@dataclass(frozen=True)
class Case:
    """One image.

    Attributes:
        id: its name.
        score: the mean over tasks of its loss divided by the task's mean loss: 1 is average, less is better.
        image: `[H, W, 3]`.
        panels: by task.
    """

    id: str
    score: float
    image: Picture
    panels: dict[str, Panel]


@dataclass(frozen=True)
class ErrorScale:
    """What the colours of a task's error maps mean: from 0, called `low`, to `most`, called `high`."""

    most: float
    low: str
    high: str


@dataclass(frozen=True)
class ClassKey:
    """What a colour of a class map stands for: a colour of CSS, the class's name or else its number."""

    colour: str
    name: str


@dataclass(frozen=True)
class Gallery:
    """The best cases, best first, and the worst, worst first, of `looked_at` images of `split`.

    Attributes:
        scales: of the error maps, by task.
        classes: those that a target or a prediction of the cases shows, by task.
    """

    best: list[Case]
    worst: list[Case]
    looked_at: int
    split: str
    scales: dict[str, ErrorScale]
    classes: dict[str, list[ClassKey]]


def gallery_or_reason(run: RunData, reporter: Reporter) -> Gallery | str:
    """The gallery, or why there is none, which is also said; a user's own data and tasks may raise anything."""
    try:
        return make_gallery(run, reporter)
    except Exception as error:
        reason = reason_of(error)
        reporter.say(f"no gallery: {reason}")
        return reason


def make_gallery(run: RunData, reporter: Reporter) -> Gallery:
    """Apply the run's model to the first images that its metrics are computed on.

    Raises:
        UserError: the data, the backbone's weights or the device are not there; no image has a label.
    """
    settings = load_settings(run.path).on_one_device()
    data = settings.config.data
    few = dataclasses.replace(data, val_size=_few(data.val_size), test_size=_few(data.test_size), workers=0)
    bench = Workbench(dataclasses.replace(settings.config, data=few), reporter)
    model, loader = load_model(run.path, bench), bench.test_batches()
    with reporter.track("gallery", len(loader)) as advance:
        losses: list[dict[str, float]] = []
        for batch in loader:
            losses += _losses(model, batch)
            advance()
    scores = _scores(losses)
    order = sorted((index for index, score in enumerate(scores) if np.isfinite(score)), key=lambda i: scores[i])
    if not order:
        raise UserError(f"no image of split {bench.test_split!r} has a label")
    count = max(1, min(SHOWN, len(order) // 2))
    best, worst = order[:count], order[::-1][: min(count, len(order) - count)]
    chosen = [*best, *worst]
    assert loader.collate_fn is not None
    raw = loader.collate_fn([loader.dataset[index] for index in chosen])
    outputs = _outputs(model, raw)
    predictions = {name: task.prediction(outputs[name]) for name, task in model.tasks.items()}
    scales = _scales(model.tasks, predictions, raw)
    cases = []
    for row, index in enumerate(chosen):
        panels = {
            name: _panel(task, predictions[name][row], raw[name][row], losses[index].get(name), scales.get(name))
            for name, task in model.tasks.items()
        }
        image = pixels_of(raw["image"][row], *bench.normalisation)
        cases.append(Case(str(raw["id"][row]), scores[index], image, panels))
    names = getattr(loader.dataset, "class_names", {})
    classes = {
        name: _class_keys(task.out_channels, predictions[name], raw[name], names.get(name, ()))
        for name, task in model.tasks.items()
        if task.dense and task.target_kind == "classes"
    }
    return Gallery(cases[: len(best)], cases[len(best) :], len(losses), bench.test_split, scales, classes)


def _few(size: int | None) -> int:
    return LOOKED_AT if size is None else min(size, LOOKED_AT)


@torch.no_grad()
def _outputs(model: MultiTaskModel, raw: Mapping[str, Any]) -> dict[str, Tensor]:
    images = read_images(raw).to(placement(model.backbone.frozen))
    return {name: value.float().cpu() for name, value in model(images).items()}


def _losses(model: MultiTaskModel, raw: Mapping[str, Any]) -> list[dict[str, float]]:
    """Per image its loss by task, of the tasks that it has a label of."""
    outputs, found = _outputs(model, raw), read_batch(raw, model.tasks)
    rows: list[dict[str, float]] = [{} for _ in found.images]
    for name, target in found.targets.items():
        for row in found.labelled[name].nonzero()[:, 0].tolist():
            own = slice(row, row + 1)
            rows[row][name] = float(model.tasks[name].loss(outputs[name][own], target[own]))
    return rows


def _scores(losses: Sequence[Mapping[str, float]]) -> list[float]:
    names = {name for row in losses for name in row}
    means = {name: float(np.mean([row[name] for row in losses if name in row])) for name in names}
    relative = [[value / means[name] for name, value in row.items() if means[name] > 0] for row in losses]
    return [float(np.mean(values)) if values else float("nan") for values in relative]


def _scales(
    tasks: Mapping[str, Task], predictions: Mapping[str, Tensor], raw: Mapping[str, Any]
) -> dict[str, ErrorScale]:
    """One for all images, to the 95th percentile: a few wild pixels must not hide the rest."""
    scales = {}
    for name, task in tasks.items():
        if not task.dense:
            continue
        maps = [error_map(task, found, target) for found, target in zip(predictions[name], raw[name], strict=True)]
        known = torch.cat([one[~one.isnan()] for one in maps]).numpy()
        if task.target_kind == "classes":
            scales[name] = ErrorScale(1.0, "right", "wrong")
            continue
        most, unit = (float(np.percentile(known, 95)) if known.size else 0.0) or 1.0, error_unit(task)
        scales[name] = ErrorScale(most, f"0{unit}", f"{short(most)}{unit} and more")
    return scales


def _class_keys(
    count: int, predictions: Iterable[Tensor], targets: Iterable[Tensor], names: Sequence[str]
) -> list[ClassKey]:
    shown = {index for index in _classes(predictions) if index < count} | (_classes(targets) - {IGNORED_CLASS})
    colours = class_colours(count)
    return [
        ClassKey("rgb({}, {}, {})".format(*colours[index]), names[index] if index < len(names) else str(index))
        for index in sorted(shown)
    ]


def _classes(maps: Iterable[Tensor]) -> set[int]:
    return {index for one in maps for index in one.long().unique().tolist()}


def _panel(task: Task, prediction: Tensor, target: Tensor, loss: float | None, scale: ErrorScale | None) -> Panel:
    if scale is None:
        known, predicted, error = written(task, prediction, target)
        return Panel(known, predicted, error, loss)
    valued = task.target_kind in ("depth", "values")
    limits = value_limits(target if loss is not None else prediction) if valued else None
    shown = picture(task, prediction, limits)
    if loss is None:
        return Panel(None, shown, None, None)
    known_picture = target_picture(task.target_kind, target, task.out_channels, limits)
    return Panel(known_picture, shown, error_picture(error_map(task, prediction, target), scale.most), loss)


def pictures(gallery: Gallery) -> list[Picture]:
    """Everything in it that is a picture."""
    panels = itertools.chain.from_iterable(case.panels.values() for case in (*gallery.best, *gallery.worst))
    inside = [part for panel in panels for part in (panel.target, panel.prediction, panel.error)]
    images = [case.image for case in (*gallery.best, *gallery.worst)]
    return [*images, *(part for part in inside if isinstance(part, np.ndarray))]
