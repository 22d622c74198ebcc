"""One-to-one edge matching: its parts against naive versions, the metric against maps whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from branchtune.errors import UserError
from branchtune.metrics.edge_f import BestEdgeF
from branchtune.metrics.edge_matching import THRESHOLDS, MatchedEdgeF, average_precision
from branchtune.metrics.matching import count_matches
from branchtune.metrics.ridges import keep_ridges
from branchtune.metrics.thinning import thin
from branchtune.tasks.edges import Edges

NAN = float("nan")
EIGHT = np.ones((3, 3))
masks = st.tuples(st.integers(0, 2**32), st.integers(1, 10), st.integers(1, 10), st.floats(0.1, 0.95))


def random_mask(seed: int, height: int, width: int, density: float) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < density


def naive_thin(mask: np.ndarray) -> np.ndarray:
    """The conditions of Guo and Hall pixel by pixel, P9 P2 P3 / P8 P1 P4 / P7 P6 P5 as in their paper."""
    image = np.pad(mask, 1).copy()
    changed = True
    while changed:
        changed = False
        for odd in (True, False):
            delete = []
            for y, x in np.argwhere(image):
                p9, p2, p3 = image[y - 1, x - 1 : x + 2]
                p8, _, p4 = image[y, x - 1 : x + 2]
                p7, p6, p5 = image[y + 1, x - 1 : x + 2]
                parts = sum(
                    [
                        not p2 and (p3 or p4),
                        not p4 and (p5 or p6),
                        not p6 and (p7 or p8),
                        not p8 and (p9 or p2),
                    ]
                )
                first = sum([p9 or p2, p3 or p4, p5 or p6, p7 or p8])
                second = sum([p2 or p3, p4 or p5, p6 or p7, p8 or p9])
                side = (p2 or p3 or not p5) and p4 if odd else (p6 or p7 or not p9) and p8
                if parts == 1 and 2 <= min(first, second) <= 3 and not side:
                    delete.append((y, x))
            for pixel in delete:
                image[pixel] = False
            changed |= bool(delete)
    return image[1:-1, 1:-1]


@settings(max_examples=25)
@given(masks)
def test_thinning_equals_the_definition_pixel_by_pixel(case: tuple[int, int, int, float]) -> None:
    mask = random_mask(*case)
    np.testing.assert_array_equal(thin(mask), naive_thin(mask))


@settings(max_examples=25)
@given(masks)
def test_thinning_keeps_the_parts_and_is_done_at_once(case: tuple[int, int, int, float]) -> None:
    mask = random_mask(*case)
    thinned = thin(mask)
    assert not (thinned & ~mask).any()
    parts, count = ndimage.label(mask, EIGHT)
    assert ndimage.label(thinned, EIGHT)[1] == count
    assert set(parts[thinned]) == set(range(1, count + 1))
    np.testing.assert_array_equal(thin(thinned), thinned)


def test_a_thick_bar_becomes_a_line_and_a_diagonal_stays() -> None:
    bar = np.zeros((20, 40), dtype=bool)
    bar[7:12, 5:35] = True
    thinned = thin(bar)
    assert (thinned.sum(axis=0) <= 1).all()
    assert thinned.sum() >= 26
    assert set(np.nonzero(thinned)[0]) <= {8, 9, 10}
    diagonal = np.eye(10, dtype=bool)
    np.testing.assert_array_equal(thin(diagonal), diagonal)


@settings(max_examples=30)
@given(masks, st.integers(0, 2**32), st.sampled_from([0.0, 1.0, math.sqrt(2), 2.0, 3.5, 20.0]))
def test_matching_equals_an_assignment(case: tuple[int, int, int, float], seed: int, radius: float) -> None:
    first = random_mask(*case)
    second = random_mask(seed, *first.shape, 0.3)
    a, b = np.argwhere(first), np.argwhere(second)
    near = np.hypot(*(a[:, None] - b[None]).transpose(2, 0, 1)) <= radius
    expected = near[linear_sum_assignment(near, maximize=True)].sum()
    assert count_matches(first, second, radius) == count_matches(second, first, radius) == expected


def test_matching_finds_the_pairs_that_a_greedy_choice_loses() -> None:
    # the middle pixel may take either true one, the left pixel only one of them
    first, second = np.zeros((1, 9), dtype=bool), np.zeros((1, 9), dtype=bool)
    first[0, [2, 4]], second[0, [3, 5]] = True, True
    assert count_matches(first, second, 1.0) == 2
    second[0, 5] = False
    assert count_matches(first, second, 1.0) == 1


def ridge(centre: float, height: int = 20, width: int = 40, sigma: float = 1.5) -> np.ndarray:
    x = np.arange(width)
    return np.broadcast_to(np.exp(-((x - centre) ** 2) / (2 * sigma**2)), (height, width))


def test_only_the_crest_of_a_ridge_is_kept() -> None:
    for probability in (ridge(20), ridge(20).T):
        kept = keep_ridges(0.8 * probability) > 0.01
        assert set(np.nonzero(kept)[int(probability.shape[0] < probability.shape[1])]) == {20}


def test_two_ridges_stay_apart_where_a_low_threshold_would_merge_them() -> None:
    both = np.maximum(0.9 * ridge(17), 0.7 * ridge(22))
    assert ndimage.label(both >= 0.1)[1] == 1
    assert set(np.nonzero(keep_ridges(both) >= 0.1)[1]) == {17, 22}


def test_an_oblique_ridge_becomes_a_line() -> None:
    y, x = np.mgrid[:40, :40]
    distance = (2 * x - y - 20) / math.sqrt(5)
    kept = keep_ridges(np.exp(-(distance**2) / 8)) >= 0.01
    assert (abs(distance[5:-5, 5:-5][kept[5:-5, 5:-5]]) <= 0.75).all()
    assert kept.sum(axis=1)[5:-5].min() >= 1


@pytest.mark.parametrize("density", [0.02, 0.3, 0.9])
def test_a_map_of_two_values_is_kept_whole(density: float) -> None:
    mask = random_mask(3, 30, 40, density)
    np.testing.assert_array_equal(keep_ridges(mask.astype(float)), mask)


def naive_scores(output: Tensor, target: Tensor, max_dist: float) -> tuple[float, float]:
    """ods_f and ois_f with a loop over images and thresholds; no label may be missing."""
    radius = max_dist * math.hypot(*target.shape[-2:])
    table = np.zeros((len(target), 99, 3))
    for image, (logits, labels) in enumerate(zip(output[:, 0].double(), target.numpy(), strict=True)):
        ridges, truth = keep_ridges(logits.sigmoid().numpy()), thin(labels >= 0.5)
        for k, threshold in enumerate(THRESHOLDS):
            predicted = thin(ridges >= threshold)
            table[image, k] = predicted.sum(), count_matches(predicted, truth, radius), truth.sum()

    def f(counts: np.ndarray) -> float:
        predicted, matched, true = counts
        precision, recall = matched / max(predicted, 1), matched / max(true, 1)
        return float(2 * precision * recall / (precision + recall)) if matched else 0.0

    best = [max(reversed(range(99)), key=lambda k: f(rows[k])) for rows in table]
    own = sum(rows[k] for rows, k in zip(table, best, strict=True))
    return max(f(counts) for counts in table.sum(axis=0)), f(own)


@settings(max_examples=5)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.1]))
def test_equals_a_loop_over_all_thresholds(seed: int, max_dist: float) -> None:
    random = torch.Generator().manual_seed(seed)
    output = 3 * torch.randn(3, 1, 12, 15, generator=random)
    target = (torch.rand(3, 12, 15, generator=random) < 0.2).float()
    target[0, 3] = 1.0
    found = scores(output, target, max_dist)
    assert (found["ods_f"], found["ois_f"]) == pytest.approx(naive_scores(output, target, max_dist), abs=1e-12)


def scores(output: Tensor, target: Tensor, max_dist: float = 0.04) -> dict[str, float]:
    metric = MatchedEdgeF(max_dist)
    metric.update(output, target)
    return {name: found.item() for name, found in metric.compute().items()}


def lines(*columns: int) -> Tensor:
    """One image of 30x40 pixels with vertical lines; 0.04 of its diagonal is 2 pixels."""
    image = torch.zeros(1, 30, 40)
    image[:, :, list(columns)] = 1.0
    return image


def logits(probability: Tensor) -> Tensor:
    return probability.double().clamp(1e-6, 1 - 1e-6).logit()[:, None]


def test_a_perfect_prediction() -> None:
    squares = torch.zeros(1, 30, 40)
    squares[0, 5:20, 5:30] = 1.0
    squares[0, 6:19, 6:29] = 0.0
    wide = lines(10, 11, 12)
    for truth in (lines(10), lines(10, 30), squares, wide):
        assert scores(logits(truth), truth, 0.0) == {"ods_f": 1.0, "ois_f": 1.0, "ap": 1.0}


def test_a_shifted_line_counts_within_the_tolerance_only() -> None:
    for max_dist, shift, expected in ((0.04, 1, 1.0), (0.04, 2, 1.0), (0.04, 3, 0.0), (0.019, 1, 0.0), (0.021, 1, 1.0)):
        found = scores(logits(lines(10 + shift)), lines(10), max_dist)
        assert set(found.values()) == {expected}


def test_a_doubled_line_is_matched_once() -> None:
    # both lines are within the tolerance, so that distances alone find nothing wrong: precision 1/2, recall 1
    output, truth = logits(lines(9, 11)), lines(10)
    by_distance = BestEdgeF(0.04)
    by_distance.update(output, truth)
    assert by_distance.compute().item() == 1.0
    found = scores(output, truth)
    assert found["ods_f"] == found["ois_f"] == pytest.approx(2 / 3)
    assert found["ap"] == pytest.approx(1 / 2)


def test_a_line_for_two_is_matched_once() -> None:
    found = scores(logits(lines(10)), lines(9, 11))
    assert found["ods_f"] == pytest.approx(2 / 3)
    assert found["ap"] == pytest.approx(1 / 2)


def test_a_thick_prediction_is_thinned() -> None:
    # of the 30 pixels of its middle line thinning takes two at each end
    expected = 2 * 26 / (26 + 30)
    assert scores(logits(lines(8, 9, 10, 11, 12)), lines(10), 0.0)["ods_f"] == pytest.approx(expected)
    assert scores(logits(0.6 * lines(8, 9, 10, 11, 12)), lines(10))["ods_f"] == pytest.approx(expected)


def test_a_soft_ridge_is_one_line_at_every_threshold() -> None:
    probability = torch.from_numpy(np.array(0.955 * ridge(10, 30, 40, 3.0)))[None]
    metric = MatchedEdgeF(0.0)
    metric.update(logits(probability), lines(10))
    assert metric.predicted[:95].tolist() == metric.matched[:95].tolist() == [30] * 95
    assert metric.compute()["ap"].item() == 1.0


def test_an_empty_prediction() -> None:
    assert scores(logits(torch.zeros(1, 30, 40)), lines(10)) == {"ods_f": 0.0, "ois_f": 0.0, "ap": 0.0}


def test_no_true_edge() -> None:
    for output in (logits(lines(10)), logits(torch.zeros(1, 30, 40))):
        assert all(math.isnan(found) for found in scores(output, torch.zeros(1, 30, 40)).values())


def test_an_image_without_true_edges_only_adds_false_ones() -> None:
    # 30 pixels are right and 30, of a probability of 0.6, are wrong: above 0.6 nothing is
    outputs = torch.cat([logits(0.5 * lines(10)), logits(0.6 * lines(10))])
    found = scores(outputs, torch.cat([lines(10), torch.zeros(1, 30, 40)]))
    assert found["ods_f"] == pytest.approx(2 / 3)
    assert found["ois_f"] == 1.0


def test_images_whose_best_thresholds_differ() -> None:
    # A is right above 0.4; B is right up to 0.3 and blind above: no one threshold suits both.
    a, b = 0.9 * lines(10) + 0.4 * lines(20, 30), 0.3 * lines(10)
    found = scores(torch.cat([logits(a), logits(b)]), torch.cat([lines(10), lines(10)]))
    assert found["ois_f"] == 1.0
    # up to 0.3: 60 of 120 right, all 60 found; above 0.4: 30 of 30 right, 30 of 60 found
    assert found["ods_f"] == pytest.approx(2 / 3)


def test_average_precision_of_a_known_curve() -> None:
    # points (recall, precision): (0.2, 1), (0.5, 0.5), (0.5, 0.4), (0.8, 0.4); one threshold that nothing reaches
    predicted, matched = torch.tensor([200, 125, 100, 20, 0]), torch.tensor([80, 50, 50, 20, 0])
    expected = 0.2 * 1 + 0.3 * (1 + 0.5) / 2 + 0.3 * (0.4 + 0.4) / 2
    found = average_precision(predicted, matched, torch.tensor(100))
    assert found.item() == pytest.approx(expected)
    assert average_precision(torch.tensor([4]), torch.tensor([3]), torch.tensor(6)).item() == pytest.approx(3 / 8)


def test_average_precision_of_a_ranked_prediction() -> None:
    # line by line from the most to the least certain: right, wrong, right
    found = scores(logits(0.9 * lines(5) + 0.6 * lines(15) + 0.3 * lines(25)), lines(5, 25, 35))
    expected = 1 / 3 + 0 + (1 / 2 + 2 / 3) / 2 / 3
    assert found["ap"] == pytest.approx(expected)


def test_what_is_ignored_neither_counts_nor_matches() -> None:
    truth, output = lines(10, 30), logits(lines(10, 20))
    truth[:, :, 15:] = NAN
    assert scores(output, truth) == {"ods_f": 1.0, "ois_f": 1.0, "ap": 1.0}
    beside = lines(10)
    beside[:, :, 11:] = NAN
    assert scores(logits(lines(11)), beside)["ods_f"] == 0.0


def test_a_prediction_that_is_no_number_is_no_edge() -> None:
    assert scores(torch.full((1, 1, 30, 40), NAN), lines(10))["ods_f"] == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_small_images(shape: tuple[int, int]) -> None:
    truth = torch.ones(1, *shape)
    assert scores(logits(truth), truth)["ods_f"] == 1.0


def test_the_task_leaves_it_to_the_final_evaluation() -> None:
    assert Edges("edge").final_metrics() == {}
    task = Edges("edge", match_dist=0.02)
    assert set(task.metrics()) == {"best_f_dt"}
    (metric,) = task.final_metrics().values()
    assert isinstance(metric, MatchedEdgeF)
    assert metric.max_dist == 0.02


@pytest.mark.parametrize("max_dist", [-0.1, 1.0, NAN])
def test_a_tolerance_that_is_no_fraction(max_dist: float) -> None:
    with pytest.raises(UserError, match="max_dist is a fraction of the image diagonal"):
        MatchedEdgeF(max_dist)
    with pytest.raises(UserError, match="task 'edge': match_dist is a fraction of the image diagonal"):
        Edges("edge", match_dist=max_dist)
