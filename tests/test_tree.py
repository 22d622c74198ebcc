"""`TaskTree`: what it accepts, what it refuses, and what does not depend on the order of writing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

import branchtune as bt
from branchtune import TaskTree, UserError

EXAMPLE = TaskTree([[["a", "b", "c", "d"]], [["a", "d"], ["b", "c"]], [["d"], ["a"], ["c", "b"]]])


@st.composite
def trees(draw: st.DrawFn, max_tasks: int = 6, max_levels: int = 5) -> TaskTree:
    """A random nested tree: every level splits some groups of the one before."""
    tasks = [f"t{i}" for i in range(draw(st.integers(1, max_tasks)))]
    levels = []
    groups = [tasks]
    for _ in range(draw(st.integers(1, max_levels))):
        finer = []
        for group in groups:
            labels = draw(st.lists(st.integers(0, 2), min_size=len(group), max_size=len(group)))
            finer += [
                members
                for label in range(3)
                if (members := [t for t, own in zip(group, labels, strict=True) if own == label])
            ]
        groups = finer
        levels.append(groups)
    return TaskTree(levels)


@given(trees(), st.randoms())
def test_equality_and_hash_ignore_the_order_of_writing(tree: TaskTree, rng: random.Random) -> None:
    shuffled = [[rng.sample(group, len(group)) for group in rng.sample(level, len(level))] for level in tree.levels]
    assert TaskTree(shuffled) == tree
    assert hash(TaskTree(shuffled)) == hash(tree)


@given(trees())
def test_json_round_trip(tree: TaskTree) -> None:
    import json

    assert TaskTree.from_json(tree.to_json()) == tree
    assert TaskTree.from_json(json.dumps(tree.to_json())) == tree


@given(trees())
def test_paths_follow_parents_and_hold_the_task(tree: TaskTree) -> None:
    for task in tree.tasks:
        path = tree.path(task)
        assert len(path) == tree.num_levels
        for level, index in enumerate(path):
            assert task in tree.levels[level][index]
            assert tree.parents(level)[index] == (path[level - 1] if level else 0)


@given(trees(), st.data())
def test_restriction_keeps_exactly_the_nodes_on_the_paths(tree: TaskTree, data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.sampled_from(tree.tasks), min_size=1, unique=True))
    smaller = tree.restrict(kept)
    assert smaller.tasks == tuple(sorted(kept))
    for level in range(tree.num_levels):
        assert smaller.group_counts[level] == len({tree.path(task)[level] for task in kept})
        for a in kept:
            for b in kept:
                together = tree.group_of(a, level) == tree.group_of(b, level)
                assert (smaller.group_of(a, level) == smaller.group_of(b, level)) == together


@given(trees())
def test_nodes_are_the_groups_and_keys_are_unique(tree: TaskTree) -> None:
    nodes = list(tree.nodes())
    assert len(nodes) == sum(tree.group_counts)
    assert len({node.key for node in nodes}) == len(nodes)
    assert all(tree.levels[node.level][node.index] == node.tasks for node in nodes)


@given(trees())
def test_drawing_has_one_line_per_node(tree: TaskTree) -> None:
    assert len(str(tree).splitlines()) == sum(tree.group_counts)


def test_drawing() -> None:
    assert str(EXAMPLE).splitlines() == [
        "a b c d",
        "├─ a d",
        "│  ├─ a",
        "│  └─ d",
        "└─ b c",
        "   └─ b c",
    ]


def test_node_key_names_level_and_tasks() -> None:
    assert [node.key for node in EXAMPLE.nodes()] == ["0/a+b+c+d", "1/a+d", "1/b+c", "2/a", "2/b+c", "2/d"]


def test_shared_and_separate() -> None:
    assert TaskTree.shared(["b", "a"], 3).group_counts == (1, 1, 1)
    assert TaskTree.separate(["b", "a"], 2).levels == ((("a",), ("b",)),) * 2


def test_one_task_and_one_level() -> None:
    tree = TaskTree([[["a"]]])
    assert (tree.num_levels, tree.path("a"), str(tree)) == (1, (0,), "a")


def test_a_tree_is_frozen() -> None:
    with pytest.raises(AttributeError):
        EXAMPLE.levels = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([], "at least one level"),
        (5, "not 5"),
        ("ab", "not 'ab'"),
        (None, "not None"),
        ([[]], "level 0 of the tree has no group"),
        ([[["a"], []]], "level 0 of the tree has an empty group"),
        (["ab"], "level 0 of the tree is 'ab'"),
        ([7], "level 0 of the tree is 7"),
        ([["ab"]], "write ['ab']"),
        ([[1]], "group 1 is not a list"),
        ([[["a", 1]]], "is not a list of task names"),
        ([[["a", "b"], ["a"]]], "level 0 of the tree repeats task 'a'"),
        ([[["a", "a"]]], "repeats task 'a'"),
        ([[["a", "b"]], [["a"]]], "level 1 of the tree misses task 'b'"),
        ([[["a"]], [["a"], ["c"]]], "level 1 of the tree adds task 'c'"),
        ([[["a"], ["b"]], [["a", "b"]]], "level 1 of the tree does not refine level 0"),
        ([[["a", "b"], ["c"]], [["a", "c"], ["b"]]], "already separated"),
    ],
)
def test_refused_trees(levels: object, message: str) -> None:
    with pytest.raises(UserError) as error:
        TaskTree(levels)  # type: ignore[arg-type]
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "not a tree"),
        ("[]", "not a tree"),
        ({"levels": []}, "not a tree"),
        ({"format": 1}, "not a tree"),
        ({"format": 2, "levels": [[["a"]]]}, "format 2 is newer"),
        ({"format": 1, "levels": 3}, "not 3"),
        ({"format": 1, "levels": [[["a"], ["a"]]]}, "repeats task 'a'"),
    ],
)
def test_refused_json(data: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TaskTree.from_json(data)  # type: ignore[arg-type]


def test_restriction_to_an_unknown_or_no_task_is_refused() -> None:
    tree = TaskTree.shared(["depth", "semseg"], 2)
    with pytest.raises(UserError, match="unknown task 'dept': did you mean 'depth'"):
        tree.restrict(["dept"])
    with pytest.raises(UserError, match="no task asked for"):
        tree.restrict([])
    with pytest.raises(UserError, match="unknown task 'normals'"):
        tree.path("normals")


def test_public_name() -> None:
    assert bt.TaskTree is TaskTree
