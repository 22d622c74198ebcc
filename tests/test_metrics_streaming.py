"""What holds for every metric: batches do not matter, no label means NaN, sums are exact."""

from __future__ import annotations

import math
import pickle
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchmetrics import Metric

from branchtune.metrics.accuracy import TopOneAccuracy
from branchtune.metrics.angle_distribution import AngleDistribution
from branchtune.metrics.angular_error import MeanAngularError
from branchtune.metrics.depth_error import DepthAbsRel, DepthLogRMSE, DepthRMSE, DepthWithin
from branchtune.metrics.edge_f import BestEdgeF
from branchtune.metrics.edge_matching import MatchedEdgeF
from branchtune.metrics.mean_iou import MeanIoU
from branchtune.metrics.rmse import RMSE
from branchtune.metrics.saliency_f import MaxF
from branchtune.metrics.saliency_iou import MaxIoU
from branchtune.metrics.streaming import StreamingMetric

SAMPLES, H, W = 6, 5, 7


def make(name: str) -> StreamingMetric:
    if name == "MeanIoU":
        return MeanIoU(4)
    if name == "MatchedEdgeF":
        return MatchedEdgeF(max_dist=0.15)
    return {metric.__name__: metric for metric in CLASSES}[name]()


CLASSES = (
    MeanIoU,
    MaxIoU,
    MaxF,
    MeanAngularError,
    AngleDistribution,
    DepthRMSE,
    DepthLogRMSE,
    DepthAbsRel,
    DepthWithin,
    BestEdgeF,
    MatchedEdgeF,
    TopOneAccuracy,
    RMSE,
)
OF_NORMALS = ("MeanAngularError", "AngleDistribution")
every_metric = pytest.mark.parametrize("name", [metric.__name__ for metric in CLASSES])


def samples(name: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random outputs and targets with some elements ignored, sample 2 as a whole."""
    random = torch.Generator().manual_seed(seed)
    if name == "MeanIoU":
        target = torch.randint(0, 4, (SAMPLES, H, W), generator=random)
        target[torch.rand(SAMPLES, H, W, generator=random) < 0.2] = 255
        target[2] = 255
        return torch.randn(SAMPLES, 4, H, W, generator=random), target
    if name == "TopOneAccuracy":
        target = torch.randint(0, 3, (SAMPLES,), generator=random)
        target[2] = -100
        return torch.randn(SAMPLES, 3, generator=random), target
    if name == "RMSE":
        output, target = torch.randn(2, SAMPLES, 3, generator=random)
    elif name in OF_NORMALS:
        output, target = torch.randn(2, SAMPLES, 3, H, W, generator=random)
    else:
        output = torch.randn(SAMPLES, 1, H, W, generator=random)
        target = torch.rand(SAMPLES, H, W, generator=random) + (0.1 if "Depth" in name else 0.0)
        target = target.clamp(max=1.0)
    target[torch.rand(target.shape, generator=random) < 0.2] = torch.nan
    target[2] = torch.nan
    return output, target


def numbers(metric: Metric) -> list[float]:
    """What `compute` gives, whether one number or several by name."""
    found = metric.compute()
    return [float(number) for number in (found.values() if isinstance(found, dict) else [found])]


def value(metric: Metric, output: Tensor, target: Tensor, sizes: list[int]) -> list[float]:
    for batch in zip(output.split(sizes), target.split(sizes), strict=True):
        metric.update(*batch)
    return numbers(metric)


@every_metric
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), cuts=st.sets(st.integers(1, SAMPLES - 1)))
def test_any_split_into_batches_gives_the_same(name: str, seed: int, cuts: set[int]) -> None:
    output, target = samples(name, seed)
    edges = [0, *sorted(cuts), SAMPLES]
    sizes = [b - a for a, b in pairwise(edges)]
    whole = value(make(name), output, target, [SAMPLES])
    assert value(make(name), output, target, sizes) == pytest.approx(whole, rel=1e-12)
    assert value(make(name), output, target, [3] * (SAMPLES // 3)) == pytest.approx(whole, rel=1e-12)
    assert value(make(name), output, target, [1] * SAMPLES) == pytest.approx(whole, rel=1e-12)


@every_metric
def test_a_last_batch_of_one(name: str) -> None:
    output, target = samples(name)
    whole = value(make(name), output, target, [SAMPLES])
    assert value(make(name), output, target, [SAMPLES - 1, 1]) == pytest.approx(whole, rel=1e-12)


@every_metric
def test_without_any_label_the_value_is_nan_and_nothing_warns(name: str) -> None:
    metric = make(name)
    assert all(map(math.isnan, numbers(metric)))
    output, target = samples(name)
    metric.update(output[2:3], target[2:3])
    assert all(map(math.isnan, numbers(metric)))


@every_metric
def test_an_unlabelled_sample_changes_nothing(name: str) -> None:
    output, target = samples(name)
    labelled = torch.tensor([index != 2 for index in range(SAMPLES)])
    without = value(make(name), output[labelled], target[labelled], [SAMPLES - 1])
    assert value(make(name), output, target, [SAMPLES]) == pytest.approx(without, rel=1e-12)


@every_metric
def test_what_an_ignored_element_predicts_does_not_matter(name: str) -> None:
    output, target = samples(name)
    ignored = target.isnan() if target.is_floating_point() else (target == 255) | (target == -100)
    if name in OF_NORMALS:
        ignored = ignored.any(dim=1, keepdim=True)
    elif ignored.ndim + 1 == output.ndim:
        ignored = ignored.unsqueeze(1)
    other = torch.where(ignored, 3.0, output)
    same = value(make(name), output, target, [SAMPLES])
    assert value(make(name), other, target, [SAMPLES]) == pytest.approx(same, rel=1e-12)


@every_metric
def test_reset_forgets(name: str) -> None:
    metric = make(name)
    output, target = samples(name, seed=1)
    metric.update(*samples(name, seed=2))
    metric.reset()
    assert value(metric, output, target, [SAMPLES]) == value(make(name), output, target, [SAMPLES])


@every_metric
def test_states_are_sums_of_full_precision(name: str) -> None:
    """A model cast to half precision takes its metrics along, not their dtype."""
    metric = make(name)
    assert {reduce.__name__ for reduce in metric._reductions.values()} == {"dim_zero_sum"}
    metric.update(*samples(name))
    before = numbers(metric)
    nn.ModuleDict({"metric": metric}).to(torch.bfloat16)
    assert {state.dtype for state in metric.metric_state.values()} <= {torch.int64, torch.float64}
    metric._computed = None
    assert numbers(metric) == before
    metric.reset()
    assert {state.dtype for state in metric.metric_state.values()} <= {torch.int64, torch.float64}


@every_metric
def test_two_processes_add_up_to_one(name: str) -> None:
    output, target = samples(name)
    ranks = [make(name), make(name)]
    ranks[0].update(output[:4], target[:4])
    ranks[1].update(output[4:], target[4:])
    whole = value(make(name), output, target, [SAMPLES])
    ranks[0].merge_state(ranks[1])
    assert numbers(ranks[0]) == pytest.approx(whole, rel=1e-12)


@every_metric
def test_a_process_without_any_sample_adds_nothing(name: str) -> None:
    output, target = samples(name)
    whole = value(make(name), output, target, [SAMPLES])
    idle, busy = make(name), make(name)
    busy.update(output, target)
    idle.merge_state(busy)
    assert numbers(idle) == whole


@every_metric
def test_half_precision_outputs_are_accepted(name: str) -> None:
    output, target = samples(name)
    rounded = output.bfloat16()
    expected = value(make(name), rounded.float(), target, [SAMPLES])
    assert value(make(name), rounded, target, [SAMPLES]) == pytest.approx(expected, rel=1e-12)


@every_metric
def test_a_metric_pickles(name: str) -> None:
    metric = make(name)
    metric.update(*samples(name))
    assert numbers(pickle.loads(pickle.dumps(metric))) == numbers(metric)
