"""Cuts of the dendrogram: one for every number of groups, nested, with a known answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from branchtune.planning.dendrogram import dendrogram_cuts, disagreement

TOY = np.array([[1, 0.6, 0.1, 0], [0.6, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.3], [0, 0.1, 0.3, 1]])


def random_matrix(tasks: int, seed: int, step: float = 0.0) -> np.ndarray:
    """Symmetric in [-1, 1]; with a step, of few distinct values, so that distances tie."""
    values = np.random.default_rng(seed).uniform(-1, 1, (tasks, tasks))
    values = np.round(values / step) * step if step else values
    matrix = np.triu(values, 1) + np.triu(values, 1).T
    np.fill_diagonal(matrix, 1.0)
    return matrix


def test_known_answer() -> None:
    cuts = dendrogram_cuts(TOY)
    assert cuts[0] == ((0, 1, 2, 3),)
    assert cuts[1] == ((0, 1), (2, 3))
    assert cuts[2] == ((0, 1), (2,), (3,))
    assert cuts[3] == ((0,), (1,), (2,), (3,))


def test_linkage_is_the_average() -> None:
    # To {0, 1} task 2 is on average nearer (0.45) than to task 3 (0.4); single or complete linkage would differ.
    matrix = np.array([[1, 0.9, 0.9, 0], [0.9, 1, 0, 0], [0.9, 0, 1, 0.4], [0, 0, 0.4, 1]])
    assert dendrogram_cuts(matrix)[1] == ((0, 1, 2), (3,))


@pytest.mark.parametrize("step", [0.0, 0.5, 4.0])
@settings(max_examples=30, deadline=None)
@given(tasks=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_cuts_nest_and_have_every_size_even_under_ties(step: float, tasks: int, seed: int) -> None:
    cuts = dendrogram_cuts(random_matrix(tasks, seed, step))
    assert [len(cut) for cut in cuts] == list(range(1, tasks + 1))
    for coarse, fine in itertools.pairwise(cuts):
        assert sorted(task for group in fine for task in group) == list(range(tasks))
        assert all(any(set(group) <= set(parent) for parent in coarse) for group in fine)


@settings(max_examples=30, deadline=None)
@given(tasks=st.integers(2, 8), seed=st.integers(0, 10**6))
def test_permuting_tasks_permutes_the_cuts(tasks: int, seed: int) -> None:
    matrix = random_matrix(tasks, seed)
    order = np.random.default_rng(seed + 1).permutation(tasks)
    plain, permuted = dendrogram_cuts(matrix), dendrogram_cuts(matrix[np.ix_(order, order)])
    for cut, other in zip(plain, permuted, strict=True):
        assert {frozenset(group) for group in cut} == {frozenset(order[list(group)].tolist()) for group in other}


def test_disagreement_by_hand() -> None:
    assert disagreement(TOY, ((0, 1), (2, 3))) == pytest.approx((0.4 + 0.7) / 6)
    assert disagreement(TOY, ((0, 1, 2, 3),)) == pytest.approx((6 - 1.3) / 6)
    assert disagreement(TOY, ((0,), (1,), (2,), (3,))) == 0.0
    assert disagreement(np.ones((1, 1)), ((0,),)) == 0.0
