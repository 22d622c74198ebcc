"""Metrics against values worked out by hand and against textbook definitions written out naively."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex
from torchmetrics.functional import mean_absolute_percentage_error
from torchmetrics.regression import MeanSquaredError

from branchtune.metrics.accuracy import TopOneAccuracy
from branchtune.metrics.angle_distribution import AngleDistribution
from branchtune.metrics.angular_error import MeanAngularError
from branchtune.metrics.depth_error import DepthAbsRel, DepthLogRMSE, DepthRMSE, DepthWithin
from branchtune.metrics.mean_iou import MeanIoU
from branchtune.metrics.rmse import RMSE
from branchtune.metrics.saliency_f import MaxF
from branchtune.metrics.saliency_iou import MaxIoU

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


def tilted(degrees: list[float]) -> tuple[Tensor, Tensor]:
    """One image of one row: predictions that are off by these angles, and the truth."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    predicted = torch.stack([angles.sin(), torch.zeros_like(angles), -angles.cos()])[None, :, None]
    truth = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64).view(1, 3, 1, 1).expand_as(predicted)
    return predicted, truth


def distribution(degrees: list[float]) -> dict[str, float]:
    metric = AngleDistribution()
    metric.update(*tilted(degrees))
    return {name: found.item() for name, found in metric.compute().items()}


def test_median_and_shares_of_angles_by_hand() -> None:
    found = distribution([1.0, 11.0, 20.0, 29.0, 170.0])
    assert found["median_angle"] == pytest.approx(20.0, abs=0.005 + 1e-9)
    assert (found["within_11.25"], found["within_22.5"], found["within_30"]) == pytest.approx((0.4, 0.6, 0.8))


def test_the_median_of_an_even_number_is_between_the_middle_two() -> None:
    assert distribution([5.0, 10.0, 40.0, 180.0])["median_angle"] == pytest.approx(25.0, abs=0.005 + 1e-9)
    assert distribution([0.0])["median_angle"] == pytest.approx(0.005)
    assert distribution([180.0])["median_angle"] == pytest.approx(179.995)


@pytest.mark.parametrize("count", [1, 2, 101, 1000])
def test_the_median_is_within_half_a_step_of_the_exact_one(count: int) -> None:
    angles = 180 * torch.rand(count, dtype=torch.float64).square()
    exact = angles.quantile(0.5).item()
    assert distribution(angles.tolist())["median_angle"] == pytest.approx(exact, abs=0.005 + 1e-9)


def test_a_share_counts_what_is_strictly_below_its_limit() -> None:
    ninety, truth = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([0, 0, -1.0]).view(1, 3, 1, 1)
    metric = AngleDistribution()
    for limit in (90.0, 90.001):
        metric.reset()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("branchtune.metrics.angle_distribution.LIMITS", (0.0, 1.0, limit))
            metric.update(ninety, truth)
        assert metric.within.tolist() == [0, 0, int(limit > 90)]


def test_a_prediction_that_is_no_number_is_as_wrong_as_can_be() -> None:
    metric = AngleDistribution()
    metric.update(torch.full((1, 3, 1, 1), NAN), torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1))
    assert metric.compute()["median_angle"].item() == pytest.approx(179.995)


def test_relative_depth_errors_by_hand() -> None:
    # ratios 2, 1.25, 1/1.2 and 1/1.5, and one without label; the second is exactly at the limit of delta1
    output = torch.tensor([[[[2.0, 1.25, 5.0, 2.0, 9.0]]]], dtype=torch.float64)
    target = torch.tensor([[[1.0, 1.0, 6.0, 3.0, NAN]]], dtype=torch.float64)
    metrics = [DepthAbsRel(), *(DepthWithin(k) for k in (1, 2, 3))]
    for metric in metrics:
        metric.update(output, target)
    expected = [(1 + 0.25 + 1 / 6 + 1 / 3) / 4, 1 / 4, 3 / 4, 3 / 4]
    assert [metric.compute().item() for metric in metrics] == pytest.approx(expected)


def test_a_depth_that_is_not_positive_is_no_match() -> None:
    for output in (-1.0, 0.0):
        metric = DepthWithin(3)
        metric.update(torch.full((1, 1, 1, 1), output), torch.ones(1, 1, 1))
        assert metric.compute().item() == 0.0


def test_abs_rel_is_the_absolute_percentage_error_of_the_labelled_pixels() -> None:
    output, target = 5 * torch.rand(3, 1, 4, 5) + 0.5, 5 * torch.rand(3, 4, 5) + 0.5
    target[torch.rand(3, 4, 5) < 0.3] = torch.nan
    metric = DepthAbsRel()
    metric.update(output, target)
    known = ~target.isnan()
    expected = mean_absolute_percentage_error(output[:, 0][known], target[known]).item()
    assert metric.compute().item() == pytest.approx(expected, rel=1e-5)


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


def batches(metrics: Sequence[Metric], draw: Callable[[], tuple[Tensor, Tensor]]) -> list[float]:
    """The values of metrics that see the same three batches."""
    for _ in range(3):
        output, target = draw()
        for metric in metrics:
            metric.update(output, target)
    return [metric.compute().item() for metric in metrics]


def test_without_ignored_pixels_rmse_is_that_of_torchmetrics() -> None:
    own, theirs = batches([RMSE(), MeanSquaredError(squared=False)], lambda: (torch.rand(4, 9), torch.rand(4, 9)))
    assert own == pytest.approx(theirs, rel=1e-5)


def test_without_ignored_images_accuracy_is_that_of_torchmetrics() -> None:
    theirs = MulticlassAccuracy(num_classes=5, average="micro")
    own, expected = batches([TopOneAccuracy(), theirs], lambda: (torch.randn(40, 5), torch.randint(5, (40,))))
    assert own == pytest.approx(expected, rel=1e-6)


def test_without_ignored_pixels_and_absent_classes_mean_iou_is_that_of_torchmetrics() -> None:
    theirs = MulticlassJaccardIndex(num_classes=4, average="macro")
    own, expected = batches([MeanIoU(4), theirs], lambda: (torch.randn(2, 4, 12, 15), torch.randint(4, (2, 12, 15))))
    assert own == pytest.approx(expected, rel=1e-6)


def test_a_class_that_is_absent_counts_here_and_not_in_torchmetrics() -> None:
    theirs = MulticlassJaccardIndex(num_classes=3, average="macro")
    classes = torch.tensor([[[0, 0, 1, 1]]])
    own, expected = batches([MeanIoU(3), theirs], lambda: (one_hot_logits(classes, 3), classes))
    assert (own, expected) == pytest.approx((2 / 3, 1.0))


def test_float64_totals_survive_many_equal_batches() -> None:
    metric = RMSE()
    output, target = torch.full((1, 100_000), 0.1), torch.zeros(1, 100_000)
    for _ in range(50):
        metric.update(output, target)
    assert metric.compute().item() == pytest.approx(float(torch.tensor(0.1)), rel=1e-10)
