"""Samples -> one batch, with everything ignored where a sample lacks a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from branchtune.errors import UserError
from branchtune.tasks.targets import describe
from branchtune.tasks.task import Task


class Collate:
    """Stack samples into `{"id": list[str], "image": [B, 3, H, W], <task>: [B, ...]}`.

    A sample is `{"id": str, "image": [3, H, W], <task>: target}`. A task that it lacks (no key, or None) gets
    `task.missing_target`; keys that name no task are dropped.

    Args:
        tasks: the tasks whose targets the batch holds.
        check: also run every task's `check_target`, which looks at the values.
    """

    def __init__(self, tasks: Sequence[Task], check: bool = True) -> None:
        self.tasks = tuple(tasks)
        self.check = check

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Raise a `UserError` that names sample and task where a shape, dtype or value is not valid."""
        if not samples:
            raise UserError("a batch needs at least one sample")
        ids = [_identifier(sample) for sample in samples]
        batch: dict[str, Any] = {"id": ids, "image": _stack_images(samples, ids)}
        size = batch["image"].shape[-2:]
        for task in self.tasks:
            missing = task.missing_target(*size)
            targets = [self._target(task, sample, id_, missing, size) for sample, id_ in zip(samples, ids, strict=True)]
            batch[task.name] = torch.stack(targets)
        return batch

    def _target(self, task: Task, sample: Mapping[str, Any], id_: str, missing: Tensor, size: torch.Size) -> Tensor:
        if sample.get(task.name) is None:
            return missing
        target = torch.as_tensor(sample[task.name])
        if target.is_floating_point() and missing.is_floating_point():
            target = target.to(missing.dtype)
        if target.shape != missing.shape or target.dtype != missing.dtype:
            raise UserError(
                f"sample {id_!r}, task {task.name!r}: the target is {describe(target)}, expected {describe(missing)}"
            )
        if self.check:
            try:
                task.check_target(target, *size)
            except UserError as error:
                raise UserError(f"sample {id_!r}: {error}") from error
        return target


def _identifier(sample: Mapping[str, Any]) -> str:
    if not isinstance(sample.get("id"), str):
        raise UserError(f"a sample needs an 'id' that is a string, found the keys {sorted(map(str, sample))}")
    return sample["id"]


def _stack_images(samples: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> Tensor:
    images: list[Tensor] = []
    for sample, id_ in zip(samples, ids, strict=True):
        image = sample.get("image")
        if not isinstance(image, Tensor):
            raise UserError(f"sample {id_!r}: 'image' is a {type(image).__name__}, expected a torch tensor")
        if image.ndim != 3 or len(image) != 3 or not image.is_floating_point():
            raise UserError(f"sample {id_!r}: 'image' is {describe(image)}, expected floats [3, H, W]")
        images.append(image)
        if image.shape != images[0].shape:
            size, first = list(image.shape[1:]), list(images[0].shape[1:])
            raise UserError(f"sample {id_!r}: image size {size} is not {first}, resize all samples to one size")
    return torch.stack(images)
