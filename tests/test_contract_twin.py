"""Folded execution equals its naive twin, in outputs and in every gradient, over all contract backbones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import branchtune as bt
from contract_backbones import CONTRACTS, TREES, grow, randomise, relative_error, traced, weighted_sum
from naive_twin import NaiveTwin

LORA = bt.LoRA(r=2, lora_alpha=3)
BOTTLENECK = bt.Bottleneck(reduction=4)


def check_twin(
    name: str,
    tree: str,
    adapter: bt.Adapter,
    dtype: torch.dtype = torch.float64,
    tolerance: float = 1e-10,
    full: bool = False,
    **options: Any,
) -> None:
    contract = CONTRACTS[name]
    model = randomise(grow(name, TREES[tree], adapter, full, **options)).to(dtype)
    twin = NaiveTwin(model, traced(name, full)[0])
    batch = 1 if full else 2
    folded_images, twin_images = (contract.images(batch, dtype, full).requires_grad_() for _ in range(2))
    inputs = contract.inputs(batch, full)
    folded, expected = model(folded_images, **inputs), twin(twin_images, inputs)
    for task in model.tasks:
        assert relative_error(folded[task], expected[task]) < tolerance, task
    with torch.no_grad():
        in_place = model(folded_images, **inputs)
    assert all(relative_error(in_place[task], expected[task]) < tolerance for task in model.tasks)
    weighted_sum(folded).backward()
    weighted_sum(expected).backward()
    assert folded_images.grad is not None
    assert twin_images.grad is not None
    assert relative_error(folded_images.grad, twin_images.grad) < tolerance
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = twin.parameters[parameter_name].grad
            assert own is not None, parameter_name
            assert parameter.grad is not None, parameter_name
            assert own.abs().max() > 0, parameter_name
            assert relative_error(parameter.grad, own) < tolerance, parameter_name


HEAVY = ("mobilenetv4_conv_small", "efficientnet_lite0")


@pytest.mark.parametrize(
    ("name", "tree"),
    [
        pytest.param(name, tree, marks=[pytest.mark.slow] if name in HEAVY and tree != "interleaved" else [])
        for name in CONTRACTS
        for tree in TREES
    ],
)
def test_folded_lora_equals_twin_in_float64(name: str, tree: str) -> None:
    extras = ("norms",) if tree == "interleaved" else ()
    check_twin(name, tree, LORA, extras=extras)


@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_bottleneck_equals_twin_in_float64(name: str) -> None:
    check_twin(name, "interleaved", BOTTLENECK)


@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_lora_equals_twin_in_float32(name: str) -> None:
    check_twin(name, "1124", LORA, torch.float32, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [LORA, BOTTLENECK], ids=["lora", "bottleneck"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_equals_twin_at_full_size(name: str, adapter: bt.Adapter) -> None:
    check_twin(name, "interleaved", adapter, full=True)


@pytest.mark.slow
@pytest.mark.parametrize("tree", ["1124", "from_level_0"])
@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_bottleneck_equals_twin_on_other_trees(name: str, tree: str) -> None:
    check_twin(name, tree, BOTTLENECK)
