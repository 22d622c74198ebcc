"""The random trees that a comparison holds against the planned one."""

from __future__ import annotations

import itertools

import pytest

from branchtune.errors import UserError
from branchtune.planning import random_tree


@pytest.mark.parametrize("counts", [(1, 1, 2, 4), (2, 2, 3, 3), (4, 4, 4, 4)])
def test_random_trees_have_the_counts_and_vary_with_the_seed(counts: tuple[int, ...]) -> None:
    trees = [random_tree(["a", "b", "c", "d"], counts, seed) for seed in range(20)]
    assert all(tree.group_counts == counts for tree in trees)
    assert trees[3] == random_tree(["d", "c", "b", "a"], counts, 3)
    assert (len(set(trees)) == 1) == (counts == (4, 4, 4, 4))


def test_random_trees_are_drawn_without_replacement_and_without_the_planned_one() -> None:
    tasks, counts = ["a", "b", "c", "d"], (1, 2, 2, 2)
    trees = [random_tree(tasks, counts, seed) for seed in range(7)]
    assert len(set(trees)) == 7  # all there are
    assert random_tree(tasks, counts, 7) == trees[0]
    others = [random_tree(tasks, counts, seed, but=[trees[2]]) for seed in range(7)]
    assert set(others) == set(trees) - {trees[2]}
    assert [tree for seed, tree in enumerate(others) if seed != 2] == trees[:2] + trees[3:]
    only = random_tree(tasks, (1, 1, 1, 1), 0)
    assert random_tree(tasks, (1, 1, 1, 1), 0, but=[only]) == only
    assert random_tree(tasks, counts, 20261123) in trees


@pytest.mark.parametrize("counts", [(), (0, 1), (2, 1), (1, 5)])
def test_counts_that_no_tree_has(counts: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="do not decrease"):
        random_tree(["a", "b", "c", "d"], counts, 0)


def test_seeds_whose_planned_trees_differ_have_different_random_trees() -> None:
    tasks, counts = ["a", "b", "c", "d"], (1, 2, 2, 2)
    trees = [random_tree(tasks, counts, seed) for seed in range(7)]
    for planned in itertools.product(trees, repeat=2):  # of the seeds 0 and 1
        drawn = {random_tree(tasks, counts, seed, but=[tree]) for seed, tree in enumerate(planned)}
        assert len(drawn) == 2
