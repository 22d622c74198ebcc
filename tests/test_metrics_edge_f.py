"""The edge metric against a distance transform per threshold, and against maps whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import Tensor

from branchtune.errors import UserError
from branchtune.metrics.disk import disk_max
from branchtune.metrics.edge_f import BestEdgeF


def within(mask: np.ndarray, radius: float) -> np.ndarray:
    """Pixels at most `radius` away from a pixel of the mask."""
    if not mask.any():
        return np.zeros_like(mask)
    return ndimage.distance_transform_edt(~mask) <= radius


def naive_best_f(output: Tensor, target: Tensor, max_dist: float) -> float:
    best = 0.0
    radius = max_dist * math.hypot(*target.shape[-2:])
    probability = output[:, 0].double().sigmoid().numpy()
    for percent in range(1, 100):
        correct = predicted_count = found = true_count = 0
        for image, labels in zip(probability, target.numpy(), strict=True):
            predicted = (image >= percent / 100) & ~np.isnan(labels)
            truth = labels >= 0.5
            correct += (predicted & within(truth, radius)).sum()
            predicted_count += predicted.sum()
            found += (truth & within(predicted, radius)).sum()
            true_count += truth.sum()
        precision, recall = correct / max(predicted_count, 1), found / true_count
        if precision + recall > 0:
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(best)


def scene(seed: int, height: int, width: int, density: float) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    target = (torch.rand(2, height, width, generator=random) < density).float()
    target[0, 0, 0] = 1.0
    output = 2 * torch.randn(2, 1, height, width, generator=random)
    target[torch.rand(2, height, width, generator=random) < 0.1] = torch.nan
    target[1, -1, -1] = 1.0
    return output, target


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    density=st.floats(0.0, 0.5),
    max_dist=st.sampled_from([0.0, 0.011, 0.08, 0.2, 0.5, 0.99]),
)
def test_equals_a_distance_transform_per_threshold(
    seed: int, height: int, width: int, density: float, max_dist: float
) -> None:
    output, target = scene(seed, height, width, density)
    metric = BestEdgeF(max_dist)
    metric.update(output, target)
    assert metric.compute().item() == pytest.approx(naive_best_f(output, target, max_dist), abs=1e-12)


def test_equals_the_naive_version_at_a_real_size() -> None:
    output, target = scene(0, 96, 128, 0.05)
    metric = BestEdgeF(0.02)
    metric.update(output, target)
    assert metric.compute().item() == pytest.approx(naive_best_f(output, target, 0.02), abs=1e-12)


@pytest.mark.parametrize("radius", [0.0, 0.9, 1.0, math.sqrt(2), 3.52, 5.0, 40.0])
def test_disk_maximum_is_a_grey_dilation(radius: float) -> None:
    maps = torch.randn(2, 11, 9, generator=torch.Generator().manual_seed(0))
    reach = math.floor(radius)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    footprint = np.sqrt(x * x + y * y) <= radius
    for image, result in zip(maps.numpy(), disk_max(maps, radius).numpy(), strict=True):
        expected = ndimage.maximum_filter(image, footprint=footprint, mode="constant", cval=-np.inf)
        np.testing.assert_array_equal(result, expected)


def line(column: int) -> Tensor:
    image = torch.zeros(1, 30, 40)
    image[:, :, column] = 1.0
    return image


def test_a_line_within_the_tolerance_is_found_and_one_beyond_is_not() -> None:
    # diagonal 50 pixels: 0.04 of it is 2 pixels
    for shift, expected in ((0, 1.0), (2, 1.0), (3, 0.0)):
        metric = BestEdgeF(0.04)
        metric.update(20 * line(10 + shift)[:, None] - 10, line(10))
        assert metric.compute().item() == expected


def test_precision_and_recall_by_hand() -> None:
    # one of two true lines is predicted, and one line where there is none: precision 1/2, recall 1/2
    metric = BestEdgeF(0.04)
    metric.update(20 * (line(10) + line(30))[:, None] - 10, line(10) + line(20))
    assert metric.compute().item() == pytest.approx(0.5)


def test_the_best_threshold_is_taken() -> None:
    # the false line has a probability of 0.5, the true one of 0.9: above 0.5 the prediction is perfect
    probability = 0.001 + 0.899 * line(10) + 0.499 * line(30)
    metric = BestEdgeF()
    metric.update(probability.double().logit()[:, None], line(10))
    assert metric.compute().item() == 1.0


def test_counts_are_pooled_over_images_of_different_sizes() -> None:
    metric = BestEdgeF(0.0)
    metric.update(torch.full((1, 1, 1, 3), 9.0), torch.ones(1, 1, 3))
    metric.update(torch.full((1, 1, 2, 1), -9.0), torch.tensor([[[1.0], [0.0]]]))
    recall, precision = 3 / 4, 1.0
    assert metric.compute().item() == pytest.approx(2 * recall * precision / (recall + precision))


def test_without_a_true_edge_the_value_is_nan() -> None:
    metric = BestEdgeF()
    metric.update(torch.zeros(1, 1, 4, 4), torch.zeros(1, 4, 4))
    assert metric.compute().isnan()


@pytest.mark.parametrize("max_dist", [-0.1, 1.0, float("nan")])
def test_a_tolerance_that_is_no_fraction(max_dist: float) -> None:
    with pytest.raises(UserError, match="max_dist is a fraction of the image diagonal"):
        BestEdgeF(max_dist)
