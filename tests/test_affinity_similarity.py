"""The three normalisations against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from branchtune.affinity.similarity import similarity

KINDS = ("none", "elementwise", "per_tensor")


def of(g: list[float], h: list[float], kind: str, sizes: list[int] | None = None) -> float:
    tensors = (torch.tensor(v, dtype=torch.float64) for v in (g, h))
    return similarity(*tensors, kind, sizes).item()


def test_a_longer_gradient_of_another_direction() -> None:
    assert of([1, 0], [1, 1], "none") == pytest.approx(0.7071, abs=1e-4)
    assert of([1, 0], [1, 1], "elementwise") == pytest.approx(0.4472, abs=1e-4)


def test_different_magnitudes_count_only_when_normalised() -> None:
    assert of([100, 0], [1, 1], "none") == pytest.approx(0.7071, abs=1e-4)
    assert of([100, 0], [1, 1], "elementwise") == pytest.approx(0.0099, abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_multiple_is_the_same_direction(kind: str) -> None:
    g = [0.3, -1.5, 0.0, 2.0]
    assert of(g, [2 * x for x in g], kind, [1, 3]) == pytest.approx(1.0)
    assert of(g, [-2 * x for x in g], kind, [1, 3]) == pytest.approx(-1.0)


@pytest.mark.parametrize("kind", ["none", "elementwise"])
def test_swapped_magnitudes(kind: str) -> None:
    assert of([1, -2], [2, -1], kind) == pytest.approx(0.8)


def test_per_tensor_is_plain_with_one_tensor_and_elementwise_with_scalars() -> None:
    g, h = [1.0, -2.0, 0.5], [0.1, -3.0, -1.0]
    assert of(g, h, "per_tensor", [3]) == pytest.approx(of(g, h, "none"))
    assert of(g, h, "per_tensor", [1, 1, 1]) == pytest.approx(of(g, h, "elementwise"))


def test_per_tensor_by_hand() -> None:
    # tensors (3, 4) of norm 5 and (1,); partner (0, 5) of norm 5 and (-3,): divided by 10 and by 4
    u, v = torch.tensor([0.3, 0.4, 0.25]), torch.tensor([0.0, 0.5, -0.75])
    expected = (u @ v / u.norm() / v.norm()).item()
    assert of([3, 4, 1], [0, 5, -3], "per_tensor", [2, 1]) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_similar_to_zero(kind: str) -> None:
    assert of([0, 0], [0, 0], kind) == 0.0
    assert of([0, 0], [1, 2], kind) == 0.0


vectors = st.lists(st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3), min_size=5, max_size=5)


@settings(max_examples=40, deadline=None)
@given(g=vectors, h=vectors, kind=st.sampled_from(KINDS))
def test_symmetric_and_bounded(g: list[float], h: list[float], kind: str) -> None:
    value = of(g, h, kind, [2, 3])
    assert abs(value) <= 1 + 1e-12
    assert value == pytest.approx(of(h, g, kind, [2, 3]), abs=1e-12)
