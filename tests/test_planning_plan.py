"""`plan` against exhaustive search, its budgets, and what it refuses."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from affinity_cases import made_up_spec
from branchtune.adapters.lora import LoRA
from branchtune.affinity import Affinity
from branchtune.backbone.spec import BackboneSpec
from branchtune.cost import tree_cost
from branchtune.errors import UserError
from branchtune.planning import describe_plan, plan
from branchtune.planning.counts import choose_counts
from branchtune.planning.dendrogram import dendrogram_cuts, disagreement
from branchtune.planning.options import LOSS_UNIT, LevelOptions, Limits
from branchtune.tree import TaskTree
from test_planning_dendrogram import TOY, random_matrix

LORA = LoRA(r=2, lora_alpha=4)
FOUR = made_up_spec([(1000, 4), (800, 8), (600, 16), (400, 32)], stem=200)


def toy(spec: BackboneSpec = FOUR) -> Affinity:
    return Affinity.from_matrix(["a", "b", "c", "d"], TOY, spec)


def random_affinity(tasks: int, levels: int, seed: int, step: float = 0.0) -> Affinity:
    random = np.random.default_rng(seed)
    spec = made_up_spec([(int(random.integers(1, 60)), int(random.integers(1, 9))) for _ in range(levels)])
    matrices = np.stack([random_matrix(tasks, seed + 1 + level, step) for level in range(levels)])
    names = [f"t{i:02}" for i in range(tasks)]
    return Affinity.from_matrix(names, random_matrix(tasks, seed, step), spec, matrices)


def objective(affinity: Affinity, counts: tuple[int, ...], adapter: LoRA) -> float:
    cuts = dendrogram_cuts(affinity.overall)
    shares = [adapter.num_parameters(site) for site in affinity.spec.sites]
    return sum(
        share / sum(shares) * disagreement(affinity.per_level[level], cuts[count - 1])
        for level, (count, share) in enumerate(zip(counts, shares, strict=True))
    )


@settings(max_examples=150, deadline=None)
@given(
    tasks=st.integers(1, 5),
    levels=st.integers(1, 4),
    seed=st.integers(0, 10**6),
    step=st.sampled_from([0.0, 0.5, 3.0]),
    budget=st.none() | st.floats(1.0, 6.0),
    share=st.none() | st.floats(1.0, 6.0),
)
def test_equals_exhaustive_search(
    tasks: int, levels: int, seed: int, step: float, budget: float | None, share: float | None
) -> None:
    affinity = random_affinity(tasks, levels, seed, step)
    if budget is None and share is None:
        budget = 2.0
    single = tree_cost(affinity.spec, TaskTree.shared(affinity.tasks, levels), LORA)
    budget_params = None if share is None else int(share * single.parameters)
    cuts = dendrogram_cuts(affinity.overall)
    feasible = []
    for counts in itertools.combinations_with_replacement(range(1, tasks + 1), levels):
        tree = TaskTree([[[affinity.tasks[i] for i in group] for group in cuts[k - 1]] for k in counts])
        cost = tree_cost(affinity.spec, tree, LORA)
        if (budget is None or cost.ratio <= budget) and (budget_params is None or cost.parameters <= budget_params):
            feasible.append((objective(affinity, counts, LORA), tree))
    if not feasible:
        with pytest.raises(UserError, match="infeasible"):
            plan(affinity, adapter=LORA, budget=budget, budget_params=budget_params)
        return
    found = plan(affinity, adapter=LORA, budget=budget, budget_params=budget_params)
    value = next(value for value, tree in feasible if tree == found)
    assert value == pytest.approx(min(value for value, _ in feasible), abs=1e-11)


@settings(max_examples=100, deadline=None)
@given(
    losses=st.lists(
        st.lists(st.integers(0, 5), min_size=4, max_size=4).map(lambda v: tuple(sorted(v, reverse=True))),
        min_size=1,
        max_size=4,
    ),
    costs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=4),
    limits=st.tuples(st.none() | st.integers(0, 40), st.none() | st.integers(0, 40)),
)
def test_the_choice_is_the_smallest_of_all_ties_included(
    losses: list[tuple[int, ...]], costs: list[tuple[int, int]], limits: tuple[int | None, int | None]
) -> None:
    levels = [LevelOptions(loss, *cost) for loss, cost in zip(losses, costs, strict=False)]
    choices = [
        (
            sum(level.loss[k - 1] for level, k in zip(levels, counts, strict=True)),
            sum(level.macs * k for level, k in zip(levels, counts, strict=True)),
            sum(level.parameters * k for level, k in zip(levels, counts, strict=True)),
            counts,
        )
        for counts in itertools.combinations_with_replacement(range(1, 5), len(levels))
    ]
    allowed = [
        choice
        for choice in choices
        if all(limit is None or used <= limit for used, limit in zip(choice[1:3], limits, strict=True))
    ]
    assert choose_counts(levels, Limits(*limits)) == (min(allowed) if allowed else None)


def test_groups_give_the_known_tree() -> None:
    tree = plan(toy(), groups=(1, 2, 3, 4))
    assert tree.levels == (
        (("a", "b", "c", "d"),),
        (("a", "b"), ("c", "d")),
        (("a", "b"), ("c",), ("d",)),
        (("a",), ("b",), ("c",), ("d",)),
    )


def test_permuting_tasks_leaves_the_tree() -> None:
    order = [2, 0, 3, 1]
    names = ["abcd"[i] for i in order]
    permuted = Affinity.from_matrix(names, TOY[np.ix_(order, order)], FOUR)
    assert plan(permuted, groups=(1, 2, 3, 3)) == plan(toy(), groups=(1, 2, 3, 3))
    assert plan(permuted, adapter=LORA, budget=1.8) == plan(toy(), adapter=LORA, budget=1.8)


def test_a_large_budget_separates_all_and_the_smallest_shares_all() -> None:
    assert plan(toy(), budget=50.0) == TaskTree.separate("abcd", 4)
    ratio = tree_cost(FOUR, TaskTree.shared(list("abcd"), 4), LoRA()).ratio
    assert plan(toy(), budget=ratio) == TaskTree.shared(list("abcd"), 4)


def test_tasks_that_agree_perfectly_stay_together_whatever_the_budget() -> None:
    affinity = Affinity.from_matrix("abc", np.ones((3, 3)), FOUR)
    assert plan(affinity, budget=50.0) == TaskTree.shared(list("abc"), 4)


def test_the_level_where_tasks_disagree_is_split() -> None:
    spec = made_up_spec([(500, 16)] * 4)
    agree, differ = np.ones((2, 2)), np.array([[1, -0.5], [-0.5, 1]])
    affinity = Affinity.from_matrix("ab", differ, spec, per_level=np.stack([agree, agree, differ, differ]))
    assert plan(affinity, adapter=LORA, budget=20.0).group_counts == (1, 1, 2, 2)


def test_noise_does_not_split_unless_asked_to_ignore_it() -> None:
    """Both tasks agree as well with each other as with themselves; single gradients are noisy."""
    affinity = Affinity.from_matrix("ab", np.full((2, 2), 0.05), FOUR)
    assert plan(affinity, budget=20.0) == TaskTree.shared(list("ab"), 4)
    assert plan(affinity, budget=20.0, noise_corrected=False) == TaskTree.separate("ab", 4)


def test_one_task() -> None:
    affinity = Affinity.from_matrix(["only"], [[0.3]], FOUR)
    assert plan(affinity, adapter=LORA, budget=2.0) == TaskTree.shared(["only"], 4)
    assert plan(affinity, groups=(1, 1, 1, 1)) == TaskTree.shared(["only"], 4)


def test_budgets_hold_together_and_depend_on_the_adapter() -> None:
    for adapter in (LORA, LoRA(r=1)):
        single = tree_cost(FOUR, TaskTree.shared(list("abcd"), 4), adapter)
        tree = plan(toy(), adapter=adapter, budget=1.4 * single.ratio, budget_params=2 * single.parameters)
        cost = tree_cost(FOUR, tree, adapter)
        assert cost.ratio <= 1.4 * single.ratio
        assert cost.parameters <= 2 * single.parameters
        assert tree != TaskTree.shared(list("abcd"), 4)


def test_an_infeasible_budget_names_one_that_is_feasible() -> None:
    with pytest.raises(UserError, match=r"infeasible budget=1 \(at least ([\d.]+)\): one group") as caught:
        plan(toy(), budget=1.0)
    enough = float(str(caught.value).split("at least ")[1].split(")")[0])
    assert plan(toy(), budget=enough) == TaskTree.shared(list("abcd"), 4)
    single = tree_cost(FOUR, TaskTree.shared(list("abcd"), 4), LoRA())
    with pytest.raises(UserError, match=rf"budget_params=3 \(at least {single.parameters}\)"):
        plan(toy(), budget_params=3)
    assert plan(toy(), budget_params=single.parameters) == TaskTree.shared(list("abcd"), 4)
    with pytest.raises(UserError, match=r"budget=1 .* and budget_params=3 "):
        plan(toy(), budget=1.0, budget_params=3)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, r"needs groups=.*budget=.*budget_params="),
    "both": ({"groups": (1, 1, 1, 1), "budget": 2.0}, "one or the other"),
    "length": ({"groups": (1, 2)}, r"names 2 levels, paper has 4: level 0: l0 -> 4 x 8 x 8; level 1"),
    "too many": ({"groups": (1, 1, 2, 5)}, "between 1 and 4 groups"),
    "none": ({"groups": (0, 1, 1, 1)}, "between 1 and 4 groups"),
    "fraction": ({"groups": (1, 1, 1.5, 2)}, "between 1 and 4 groups"),
    "decreasing": ({"groups": (1, 3, 2, 4)}, "decreases"),
    "negative": ({"budget": -1.0}, "positive multiple"),
    "nan": ({"budget": math.nan}, "positive multiple"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    arguments, message = BAD[case]
    with pytest.raises(UserError, match=message):
        plan(toy(), **arguments)


def test_thirty_two_tasks_on_twelve_levels() -> None:
    random = np.random.default_rng(0)
    spec = made_up_spec([(int(m), int(c)) for m, c in random.integers(10**5, 10**6, (12, 2)) // [1, 1000]])
    matrices = np.stack([random_matrix(32, seed) for seed in range(12)])
    affinity = Affinity.from_matrix([f"t{i:02}" for i in range(32)], matrices.mean(0), spec, matrices)
    start = time.process_time()
    tree = plan(affinity, adapter=LORA, budget=2.0)
    assert time.process_time() - start < 1.0
    assert 1.9 < tree_cost(spec, tree, LORA).ratio <= 2.0


def test_losses_are_counted_finely_enough() -> None:
    assert LOSS_UNIT < 1e-11


def test_the_description_predicts_every_node_and_the_totals() -> None:
    tree = plan(toy(), groups=(1, 1, 2, 3))
    cost = tree_cost(FOUR, tree, LORA)
    lines = describe_plan(tree, toy(), LORA).splitlines()
    assert lines[0].split() == ["tree", "level", "affinity", "parameters", "MACs", "share"]
    assert lines[1].split() == ["●", "image", "0", "200", f"{200 / cost.macs:.1%}"]
    assert lines[2].startswith("● a b c d")
    assert lines[2].split()[-5:] == ["0", "0.22", "16", "1.02k", f"{1016 / cost.macs:.1%}"]
    branch = next(line for line in lines if "(same)" in line and " 3 " in line)
    assert branch.split()[-5:] == ["3", "0.60", "128", "912", f"{(400 + 4 * 128) / cost.macs:.1%}"]
    assert lines[-2].split() == ["total", f"{cost.parameters:,}", f"{cost.macs / 1000:.2f}k", "100.0%"]
    assert lines[-1].startswith(f"{cost.ratio:.3f} times the MACs of one backbone pass (3,000)")
    assert len(lines) == 1 + 1 + len(list(tree.nodes())) + 2
    assert "affinity" not in describe_plan(tree, FOUR, LORA)
    assert describe_plan(TaskTree.shared(list("ab"), 4), FOUR, None).splitlines()[-1].startswith("1.000 times")
