"""What a valid, an ignored and a missing target is, for each `Task.target_kind`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.ignored import IGNORED_CLASS, IGNORED_LABEL

if TYPE_CHECKING:
    from branchtune.tasks.task import Task

MAX_DEPTH = 1000.0
NORMAL_TOLERANCE = 1e-2


def valid_elements(task: Task, target: Tensor) -> Tensor:
    """Which elements of stacked targets carry a label: bool, shaped as `target`, for normals `[B, H, W]`."""
    if task.target_kind == "normals":
        return ~target.isnan().any(dim=1)
    return ~target.isnan() if target.is_floating_point() else target != _ignored_class(task)


def ignored_target(task: Task, height: int, width: int) -> Tensor:
    """A target whose every element is ignored."""
    shape = _shape(task, height, width)
    if holds_classes(task):
        return torch.full(shape, _ignored_class(task), dtype=torch.int64)
    return torch.full(shape, float("nan"))


def check_target(task: Task, target: Tensor, height: int, width: int) -> None:
    """Raise a `UserError` unless `target` is a valid target for one image of height x width pixels."""
    problem = _wrong_type(task, target, _shape(task, height, width)) or _wrong_value(task, target)
    if problem:
        raise UserError(f"task {task.name!r}: {problem}")


def outside_classes(task: Task, targets: Tensor) -> Tensor | None:
    """Which samples of stacked targets `[B, ...]` hold a class that the task does not have; None without classes."""
    if not holds_classes(task):
        return None
    outside = ((targets < 0) | (targets >= task.out_channels)) & (targets != _ignored_class(task))
    return outside.reshape(len(targets), -1).any(dim=1)


def describe(tensor: Tensor) -> str:
    """Dtype and shape for messages, e.g. `float32 [2, 3]`."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def holds_classes(task: Task) -> bool:
    """Whether a target is a class, or a map of classes."""
    return task.target_kind == "classes" or (task.target_kind == "image" and task.image_target == "class")


def _ignored_class(task: Task) -> int:
    return IGNORED_CLASS if task.dense else IGNORED_LABEL


def _shape(task: Task, height: int, width: int) -> tuple[int, ...]:
    if task.target_kind == "image":
        return () if holds_classes(task) else (task.out_channels,)
    return (3, height, width) if task.target_kind == "normals" else (height, width)


def _wrong_type(task: Task, target: Tensor, shape: tuple[int, ...]) -> str | None:
    if not isinstance(target, Tensor):
        return f"the target is of type {type(target).__name__}, expected a torch tensor"
    if tuple(target.shape) != shape:
        return f"the target has shape {tuple(target.shape)}, expected {shape}"
    if holds_classes(task) and target.dtype != torch.int64:
        return f"the target has dtype {target.dtype}, expected torch.int64 (convert with .long())"
    if not holds_classes(task) and not target.is_floating_point():
        return f"the target has dtype {target.dtype}, expected torch.float32 (convert with .float())"
    return None


def _wrong_value(task: Task, target: Tensor) -> str | None:
    if holds_classes(task):
        if _within(target, 0, task.out_channels - 1):
            return None
        ignored = _ignored_class(task)
        bad = ((target < 0) | (target >= task.out_channels)) & (target != ignored)
        return _first(bad, target, f"a class is 0..{task.out_channels - 1}, or {ignored} where ignored")
    if task.target_kind == "normals":
        return _wrong_normal(target)
    if task.target_kind == "depth":
        bad = (target <= 0) | (target >= MAX_DEPTH)
        return _first(bad, target, f"a depth is in metres, above 0 and below {MAX_DEPTH:g}, or NaN where unknown")
    low, high = task.value_range
    if math.isfinite(high - low) and _within(target, low, high):
        return None
    bad = target.isinf() | (target < low) | (target > high)
    limits = f" and in [{low:g}, {high:g}]" if math.isfinite(high - low) else ""
    return _first(bad, target, f"a value is finite{limits}, or NaN where ignored")


def _wrong_normal(target: Tensor) -> str | None:
    length = target.square().sum(dim=0).sqrt()
    if _within(length, 1 - NORMAL_TOLERANCE, 1 + NORMAL_TOLERANCE):
        return None
    unknown = target.isnan()
    partial = unknown.any(dim=0) & ~unknown.all(dim=0)
    if partial.any():
        where = partial.nonzero()[0].tolist()
        return f"the normal at {where} is NaN in some channels only, an ignored pixel is NaN in all three"
    outside = target.abs() > 1 + NORMAL_TOLERANCE
    if outside.any():
        return _first(outside, target, "an element of a unit normal is in [-1, 1], or NaN where ignored")
    bad = (length - 1).abs() > NORMAL_TOLERANCE
    return _first(bad, length, "this is the length of a normal, which must be 1 (divide by it)")


def _within(values: Tensor, low: float, high: float) -> bool:
    """Whether all lie in [low, high] and none is NaN: most targets, which then need no closer look."""
    smallest, largest = values.aminmax()
    return bool(smallest >= low) and bool(largest <= high)


def _first(bad: Tensor, values: Tensor, rule: str) -> str | None:
    """A message about the first element marked as bad, or None without one."""
    if not bad.any():
        return None
    position = bad.nonzero()[0].tolist()
    place = f" at {position}" if position else ""
    return f"the target holds {values[bad][0].item():g}{place}: {rule}"
