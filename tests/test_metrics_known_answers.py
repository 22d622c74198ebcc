"""Metrics against values worked out by hand and against textbook definitions written out naively."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from branchtune.evaluation.accuracy import TopOneAccuracy
from branchtune.evaluation.angular_error import MeanAngularError
from branchtune.evaluation.depth_error import DepthLogRMSE, DepthRMSE
from branchtune.evaluation.mean_iou import MeanIoU
from branchtune.evaluation.rmse import RMSE
from branchtune.evaluation.saliency_f import MaxF
from branchtune.evaluation.saliency_iou import MaxIoU

NAN = float("nan")


def one_hot_logits(classes: Tensor, num_classes: int) -> Tensor:
    return torch.nn.functional.one_hot(classes, num_classes).movedim(-1, 1).float()


def logits(probability: list[list[float]]) -> Tensor:
    """One image of one row per list."""
    return torch.tensor(probability, dtype=torch.float64).logit()[:, None, None, :]


def test_mean_iou_by_hand() -> None:
    metric = MeanIoU(3)
    target = torch.tensor([[[0, 0, 1, 1, 255]]])
    predicted = torch.tensor([[[0, 1, 1, 1, 2]]])
    metric.update(one_hot_logits(predicted, 3), target)
    # class 0: 1 of 2; class 1: 2 of 3; class 2 neither occurs nor is predicted where labels are: 0
    assert metric.compute().item() == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_mean_iou_pools_over_the_set() -> None:
    metric = MeanIoU(2)
    for target, predicted in (([0, 0, 0, 1], [0, 0, 0, 0]), ([1, 1, 1, 1], [1, 1, 1, 1])):
        metric.update(one_hot_logits(torch.tensor([[predicted]]), 2), torch.tensor([[target]]))
    assert metric.compute().item() == pytest.approx((3 / 4 + 4 / 5) / 2)


def test_max_iou_takes_the_best_threshold_of_the_mean_over_images() -> None:
    output = logits([[0.9, 0.6, 0.3, 0.1], [0.9, 0.6, 0.3, 0.1]])
    target = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 1, 1, 0]]])
    metric = MaxIoU()
    metric.update(output, target)
    # thresholds from .2: 1/3 and 1; from .3: 1/2 and 2/3; from .6: 1 and 1/3. Both ends give 2/3.
    assert metric.compute().item() == pytest.approx(2 / 3)


def test_max_iou_compares_strictly() -> None:
    """At 0.5 a probability of exactly 0.5 is background: only thresholds below it find the pixel."""
    metric = MaxIoU()
    metric.update(torch.zeros(1, 1, 1, 2), torch.tensor([[[1.0, NAN]]]))
    assert metric.iou.tolist() == [1.0] * 6 + [0.0] * 9


def test_nothing_salient_and_nothing_predicted_is_perfect() -> None:
    for metric in (MaxIoU(), MaxF()):
        metric.update(torch.full((1, 1, 2, 2), -9.0), torch.zeros(1, 2, 2))
        assert metric.compute().item() == 1.0
        metric.reset()
        metric.update(torch.full((1, 1, 2, 2), 9.0), torch.zeros(1, 2, 2))
        assert metric.compute().item() == 0.0


def test_max_f_by_hand() -> None:
    output = logits([[0.95, 0.95, 0.1, 0.1], [0.95, 0.1, 0.1, 0.1]])
    target = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 1, 0, 0]]])
    metric = MaxF()
    metric.update(output, target)
    # at every threshold precision 1/2 and 1, recall 1 and 1/2: means 3/4 and 3/4
    assert metric.compute().item() == pytest.approx(0.75)


def test_angles_by_hand() -> None:
    truth = torch.tensor([0.0, 0.0, -1.0]).expand(5, 3)
    tilted = [math.sin(math.radians(30)), 0.0, -math.cos(math.radians(30))]
    predicted = torch.tensor([[0, 0, -1.0], tilted, [0, 2.0, 0], [0, 0, 0.1], [0, 0, 0]])
    metric = MeanAngularError()
    for a, b, angle in zip(predicted, truth, (0.0, 30.0, 90.0, 180.0, 90.0), strict=True):
        metric.reset()
        metric.update(a[None, :, None, None], b[None, :, None, None])
        assert metric.compute().item() == pytest.approx(angle, abs=1e-5)


def test_small_angles_are_not_lost() -> None:
    angle = math.radians(1e-5)
    a = torch.tensor([math.sin(angle), 0.0, -math.cos(angle)], dtype=torch.float64).view(1, 3, 1, 1)
    metric = MeanAngularError()
    metric.update(a, torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1))
    assert metric.compute().item() == pytest.approx(1e-5, rel=1e-6)


def test_angles_are_pooled_over_pixels() -> None:
    a = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    metric = MeanAngularError()
    metric.update(a.expand(1, 3, 1, 3), a.expand(1, 3, 1, 3))
    metric.update(a, a.flip(1))
    assert metric.compute().item() == pytest.approx(90 / 4)


def test_depth_errors_by_hand() -> None:
    output, target = torch.tensor([[[[2.0, 4.0, -3.0, 7.0]]]]), torch.tensor([[[1.0, 4.0, 2.0, NAN]]])
    rmse, log_rmse = DepthRMSE(), DepthLogRMSE()
    rmse.update(output, target)
    log_rmse.update(output, target)
    assert rmse.compute().item() == pytest.approx(math.sqrt((1 + 0 + 4) / 3), rel=1e-6)
    expected = math.sqrt((math.log(2) ** 2 + 0 + (math.log(1e-9) - math.log(2)) ** 2) / 3)
    assert log_rmse.compute().item() == pytest.approx(expected)


def test_accuracy_by_hand() -> None:
    metric = TopOneAccuracy()
    metric.update(torch.tensor([[1.0, 2, 0], [3, 2, 0], [0, 0, 1], [5, 0, 0]]), torch.tensor([1, 1, 2, -100]))
    assert metric.compute().item() == pytest.approx(2 / 3)


def test_rmse_by_hand() -> None:
    metric = RMSE()
    metric.update(torch.tensor([[1.0, 5.0], [2.0, 0.0]]), torch.tensor([[4.0, NAN], [2.0, 0.0]]))
    assert metric.compute().item() == pytest.approx(math.sqrt(3.0))


def test_float64_totals_survive_many_equal_batches() -> None:
    metric = RMSE()
    output, target = torch.full((1, 100_000), 0.1), torch.zeros(1, 100_000)
    for _ in range(50):
        metric.update(output, target)
    assert metric.compute().item() == pytest.approx(float(torch.tensor(0.1)), rel=1e-10)
