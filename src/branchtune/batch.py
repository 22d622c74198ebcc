"""A loader's batch -> checked images and targets: what losses, metrics and gradients read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.tasks.targets import describe, outside_classes
from branchtune.tasks.task import Task


@dataclass(frozen=True)
class Batch:
    """Images, and the targets of the tasks that have a label among them.

    Attributes:
        images: `[B, C, H, W]`.
        targets: per task `[B, ...]`; a task without labels in the batch is absent.
        labelled: per task of `targets` `[B]`, which samples count.
        inputs: further keyword inputs of the backbone, batch first.
        ids: names of the samples; their positions where the batch has no "id".
    """

    images: Tensor
    targets: dict[str, Tensor]
    labelled: dict[str, Tensor]
    inputs: dict[str, Tensor]
    ids: Sequence[object]


def read_batch(
    raw: Mapping[str, Any],
    tasks: Mapping[str, Task],
    *,
    like: Tensor | None = None,
    inputs: Collection[str] = (),
    limit: int | None = None,
) -> Batch:
    """Check a batch and take what `tasks` need of it.

    A target must have the shape and kind of number of the task's stacked `missing_target`, and hold no class that the
    task does not have; other values are looked at by `Collate`, not here.

    Args:
        raw: `{"id", "image" [B, C, H, W], "<task>": [B, ...]}`; a task that it lacks has no label here.
        tasks: by name.
        like: the images get its device and dtype, all others its device; default: left as they are.
        inputs: keys of further keyword inputs of the backbone.
        limit: read the first samples only.

    Raises:
        UserError: names the task, and the sample where a single one is wrong.
    """
    images = read_images(raw)
    ids = _ids(raw, len(images))
    targets = {name: _target(task, raw[name], images, ids) for name, task in tasks.items() if name in raw}
    device = images.device if like is None else like.device
    moved = {name: _own(target[:limit]).to(device) for name, target in targets.items()}
    _check_classes(moved, tasks, images, ids)
    labelled = {name: tasks[name].labelled(target) for name, target in moved.items()}
    present = _truths([rows.any() for rows in labelled.values()])
    kept = [name for name, any_label in zip(labelled, present, strict=True) if any_label]
    images = _own(images[:limit])
    return Batch(
        images if like is None else images.to(like),
        {name: moved[name] for name in kept},
        {name: labelled[name] for name in kept},
        {key: _own(_input(raw, key, len(images), limit)).to(device) for key in inputs},
        ids[:limit],
    )


def read_images(raw: Mapping[str, Any]) -> Tensor:
    """The images of a batch, `[B, C, H, W]`.

    Raises:
        UserError: the batch is no dictionary or has no such images.
    """
    if not isinstance(raw, Mapping):
        raise UserError(
            f"a batch is a {type(raw).__name__}, expected {{'image': [B, 3, H, W], '<task>': [B, ...]}}: let the "
            "dataset give dictionaries, and the loader use collate_fn=Collate(tasks)"
        )
    if "image" not in raw:
        raise UserError(f"a batch has no 'image', only {sorted(map(str, raw))}: give its images [B, 3, H, W] this key")
    images = raw["image"]
    if not isinstance(images, Tensor):
        raise UserError(f"'image' of a batch is of type {type(images).__name__}: convert it to a torch tensor")
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise UserError(f"'image' of a batch is {describe(images)}, expected floats [B, 3, H, W], normalised")
    return images


def _ids(raw: Mapping[str, Any], count: int) -> list[object]:
    ids = raw.get("id", range(count))
    ids = ids.tolist() if isinstance(ids, Tensor) else ids
    if isinstance(ids, str) or not isinstance(ids, Sequence) or len(ids) != count:
        raise UserError(f"'id' of a batch of {count} images is {ids!r}: give one name for each image, or none at all")
    return list(ids)


def _target(task: Task, target: Any, images: Tensor, ids: Sequence[object]) -> Tensor:
    where = f"task {task.name!r} ({sample_names(ids)})"
    if target is None:
        raise UserError(
            f"{where}: the label is None; leave the key out of the batch, or fill it with task.missing_target (as "
            "Collate does)"
        )
    if not isinstance(target, Tensor):
        raise UserError(f"{where}: the targets are of type {type(target).__name__}, expected a torch tensor")
    height, width = images.shape[2:]
    one = task.missing_target(height, width)
    if tuple(target.shape) != (len(images), *one.shape):
        raise UserError(
            f"{where}: the targets are {describe(target)}, expected {[len(images), *one.shape]} for {len(images)} "
            f"images of {height}x{width}"
        )
    fits = target.is_floating_point() if one.is_floating_point() else target.dtype == one.dtype
    if not fits:
        kind = describe(one).split()[0]
        way = "float" if one.is_floating_point() else "long"
        raise UserError(f"{where}: the targets are {describe(target)}, expected {kind} (convert with .{way}())")
    return target


def _check_classes(
    targets: Mapping[str, Tensor], tasks: Mapping[str, Task], images: Tensor, ids: Sequence[object]
) -> None:
    """Refuse classes that a task does not have: on a GPU they would end the process rather than raise an error."""
    outside = {name: rows for name, t in targets.items() if (rows := outside_classes(tasks[name], t)) is not None}
    for name, wrong in zip(outside, _truths([rows.any() for rows in outside.values()]), strict=True):
        for row in outside[name].nonzero()[:, 0].tolist() if wrong else ():
            try:
                tasks[name].check_target(targets[name][row].cpu(), images.shape[2], images.shape[3])
            except UserError as error:
                raise UserError(f"sample {ids[row]!r}: {error}") from error


def _input(raw: Mapping[str, Any], key: str, count: int, limit: int | None) -> Tensor:
    if key not in raw:
        raise UserError(f"a batch has no {key!r}, an input of the backbone named in example_inputs: add it")
    value = raw[key]
    if not isinstance(value, Tensor) or value.shape[:1] != (count,):
        found = describe(value) if isinstance(value, Tensor) else f"of type {type(value).__name__}"
        raise UserError(f"input {key!r} of a batch is {found}, expected a tensor of {count} rows, one for each image")
    return value[:limit]


def _own(tensor: Tensor) -> Tensor:
    """A tensor made in inference mode takes part in no backward pass, its copy does."""
    return tensor.clone() if tensor.is_inference() else tensor


def _truths(flags: Sequence[Tensor]) -> list[bool]:
    """One wait for the device, whatever the number of flags."""
    return torch.stack(list(flags)).tolist() if flags else []


def sample_names(ids: Sequence[object], shown: int = 8) -> str:
    """`samples a, b, ...` for messages."""
    return f"samples {', '.join(map(str, ids[:shown]))}{', ...' if len(ids) > shown else ''}"
