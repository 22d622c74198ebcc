"""Predicted parameters, multiply-accumulates and level passes are those of the built model, exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from contract_backbones import CONTRACTS, TASKS, TREES, grow

ADAPTERS: dict[str, bt.Adapter] = {"lora": bt.LoRA(r=3, rank_pattern={1: 2}), "bottleneck": bt.Bottleneck(5)}


def counted_macs(model: bt.MultiTaskModel, images: torch.Tensor, inputs: dict[str, torch.Tensor]) -> int:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model.backbone(images, inputs=inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_predicted_cost_is_the_counted_one(name: str, adapter: str) -> None:
    check_cost(name, "from_level_0" if adapter == "lora" else "interleaved", adapter)


@pytest.mark.slow
@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_predicted_cost_is_the_counted_one_at_full_size(name: str, adapter: str, tree: str) -> None:
    check_cost(name, tree, adapter, full=True)


def check_cost(name: str, tree: str, adapter: str, full: bool = False) -> None:
    contract, model = CONTRACTS[name], grow(name, TREES[tree], ADAPTERS[adapter], full)
    predicted = model.cost()
    assert predicted.parameters == model.count_parameters()["adapters"]
    assert predicted.macs == counted_macs(model, contract.images(1, full=full), contract.inputs(1, full))


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_backbone_without_adapters_costs_one_plain_pass(name: str) -> None:
    contract = CONTRACTS[name]
    model = grow(name, bt.TaskTree.shared(TASKS, 4), None)
    cost = model.cost()
    assert (cost.parameters, cost.ratio) == (0, 1.0)
    assert cost.macs == cost.backbone_macs == counted_macs(model, contract.images(1), contract.inputs(1))


@pytest.mark.parametrize("name", CONTRACTS)
def test_level_passes_are_the_groups_of_the_pruned_tree(name: str) -> None:
    contract, tree = CONTRACTS[name], TREES["interleaved"]
    model = grow(name, tree, ADAPTERS["lora"])
    rows: list[int] = []

    def note(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        rows.append(len(args[0]))

    for level in model.spec.levels:
        model.backbone.frozen.get_submodule(level.start).register_forward_pre_hook(note)
    for wanted in (TASKS, ("b",), ("a", "d"), ("c", "a", "b")):
        rows.clear()
        with torch.no_grad():
            model(contract.images(2), tasks=wanted, **contract.inputs(2))
        assert tuple(rows) == tuple(2 * count for count in tree.restrict(wanted).group_counts), wanted
