"""Costs before anything is built."""

from __future__ import annotations

import pytest

import branchtune as bt
from branchtune.cost import level_costs, tree_cost
from contract_backbones import TASKS, TREES, traced

LORA = bt.LoRA(r=2)


@pytest.mark.parametrize("name", ["swin_tiny", "swinv2_tiny", "resnet18", "hiera_tiny"])
@pytest.mark.parametrize("tree", TREES)
def test_cost_is_the_sum_over_levels_of_groups_times_cost(name: str, tree: str) -> None:
    spec = traced(name)[1]
    costs, counts = level_costs(spec, LORA), TREES[tree].group_counts
    total = tree_cost(spec, TREES[tree], LORA)
    assert total.macs == spec.stem_macs + sum(n * c.macs for n, c in zip(counts, costs, strict=True))
    assert total.parameters == sum(n * c.parameters for n, c in zip(counts, costs, strict=True))
    assert len(total.nodes) == sum(counts)
    assert total.ratio == total.macs / spec.macs


def test_without_adapter_a_shared_tree_costs_the_plain_backbone() -> None:
    spec = traced("swin_tiny")[1]
    cost = tree_cost(spec, bt.TaskTree.shared(TASKS, 4), None)
    assert (cost.parameters, cost.macs, cost.ratio) == (0, spec.macs, 1.0)


def test_lora_parameters_on_swin_follow_the_closed_form() -> None:
    spec = traced("swin_tiny")[1]
    for tree in TREES.values():
        expected = 16 * sum(
            g * 2 * depth * c for g, depth, c in zip(tree.group_counts, (2, 1, 2, 1), (16, 32, 64, 128), strict=True)
        )
        assert tree_cost(spec, tree, LORA).parameters == expected


def test_what_does_not_see_the_batch_is_no_branchs_cost() -> None:
    """swinv2's networks over relative positions run once per level, however many groups there are."""
    spec = traced("swinv2_tiny")[1]
    patches = 16 * 16 * 16 * 3 * 4 * 4
    positions = sum(
        depth * (2 * window - 1) ** 2 * (2 * 512 + 512 * heads)
        for depth, window, heads in zip((2, 1, 2, 1), (4, 4, 4, 2), (1, 2, 2, 4), strict=True)
    )
    assert spec.stem_macs == patches + positions
