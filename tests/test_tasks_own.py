"""A user's own task is one short class; the base class knows the targets from `target_kind`."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from branchtune.errors import UserError
from branchtune.metrics.streaming import StreamingMean
from branchtune.tasks.masked import masked_l1
from branchtune.tasks.task import Task


class MeanHeightError(StreamingMean):
    def update(self, output: Tensor, target: Tensor) -> None:
        self.add((output[:, 0] - target).abs(), ~target.isnan())


class Height(Task):
    """Height above ground, at most 9 km."""

    target_kind = "values"
    value_range = (0.0, 9000.0)
    headline = "mae"
    higher_is_better = False

    def __init__(self, name: str) -> None:
        super().__init__(name, out_channels=1, weight=3.0)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return masked_l1(output[:, 0], target, ~target.isnan())

    def metrics(self) -> dict[str, Metric]:
        return {"mae": MeanHeightError()}


class Hit(StreamingMean):
    def update(self, output: Tensor, target: Tensor) -> None:
        self.add((output[:, 0] > 0) == (target == 1), target != -100)


class Indoor(Task):
    """Whether a photo was taken indoors."""

    target_kind = "image"
    headline = "accuracy"
    higher_is_better = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        known = target != -100
        return F.binary_cross_entropy_with_logits(output[known, 0], target[known].float())

    def metrics(self) -> dict[str, Metric]:
        return {"accuracy": Hit()}


class Gaze(Indoor):
    image_target = "values"


def test_an_own_dense_task() -> None:
    task = Height("height")
    known, missing = torch.tensor([[1.0, float("nan")]]), task.missing_target(1, 2)
    task.check_target(known, 1, 2)
    target = torch.stack([known, missing])
    assert task.dense
    assert task.labelled(target).tolist() == [True, False]
    output = torch.tensor([3.0, 8.0, 9.0, 9.0]).view(2, 1, 1, 2)
    assert task.loss(task.activate(output), target).item() == 2.0
    metric = task.metrics()[task.headline]
    metric.update(output, target)
    assert metric.compute().item() == 2.0
    with pytest.raises(UserError, match=r"task 'height': the target holds 9001 at \[0, 1\]: .*\[0, 9000\]"):
        task.check_target(torch.tensor([[1.0, 9001.0]]), 1, 2)


def test_an_own_image_level_task() -> None:
    task = Indoor("indoor", out_channels=2)
    assert not task.dense
    target = torch.stack([torch.tensor(1), task.missing_target(8, 8)])
    assert task.labelled(target).tolist() == [True, False]
    assert task.loss(torch.zeros(2, 2), target).item() == pytest.approx(0.6931472)
    metric = task.metrics()[task.headline]
    metric.update(torch.ones(2, 2), target)
    assert metric.compute().item() == 1.0
    with pytest.raises(UserError, match=r"task 'indoor': the target holds 2: a class is 0\.\.1, or -100"):
        task.check_target(torch.tensor(2), 8, 8)


def test_an_own_image_level_task_with_numbers() -> None:
    task = Gaze("gaze", out_channels=2)
    assert task.missing_target(8, 8).isnan().tolist() == [True, True]
    task.check_target(torch.tensor([0.1, float("nan")]), 8, 8)
