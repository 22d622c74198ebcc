"""Folded execution equals its naive twin, in outputs and in every gradient, over all contract backbones."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from contract_backbones import CONTRACTS, TREES, grow, randomise, relative_error, weighted_sum
from naive_twin import NaiveTwin
from torch import nn

import branchtune as bt

ADAPTERS: dict[str, bt.Adapter] = {
    "lora": bt.LoRA(r=2, lora_alpha=3),
    "bottleneck": bt.Bottleneck(reduction=4),
}


@cache
def traced(name: str, full: bool = False) -> tuple[nn.Module, Any]:
    backbone = CONTRACTS[name].build(full)
    return backbone, CONTRACTS[name].trace(backbone, full)


def check_twin(
    name: str,
    tree: bt.TaskTree,
    adapter: bt.Adapter,
    dtype: torch.dtype,
    tolerance: float,
    full: bool = False,
    **options: Any,
) -> None:
    contract = CONTRACTS[name]
    backbone, spec = traced(name, full)
    model = randomise(grow(contract, backbone, spec, tree, adapter, **options)).to(dtype)
    twin = NaiveTwin(model, backbone)
    batch = 1 if full else 2
    folded_images, twin_images = (contract.images(batch, dtype, full).requires_grad_() for _ in range(2))
    inputs = contract.inputs(batch, full)
    folded, expected = model(folded_images, **inputs), twin(twin_images, inputs)
    for task in model.tasks:
        assert relative_error(folded[task], expected[task]) < tolerance, task
    weighted_sum(folded).backward()
    weighted_sum(expected).backward()
    assert relative_error(folded_images.grad, twin_images.grad) < tolerance
    for parameter_name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own = twin.parameters[parameter_name].grad
            assert own is not None, parameter_name
            assert parameter.grad is not None, parameter_name
            assert own.abs().max() > 0, parameter_name
            assert relative_error(parameter.grad, own) < tolerance, parameter_name


@pytest.mark.parametrize("tree", TREES)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_equals_twin_in_float64(name: str, adapter: str, tree: str) -> None:
    extras = ("norms",) if tree == "interleaved" else ()
    check_twin(name, TREES[tree], ADAPTERS[adapter], torch.float64, 1e-10, extras=extras)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_equals_twin_in_float32(name: str, adapter: str) -> None:
    check_twin(name, TREES["interleaved"], ADAPTERS[adapter], torch.float32, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_folded_equals_twin_at_full_size(name: str, adapter: str) -> None:
    check_twin(name, TREES["interleaved"], ADAPTERS[adapter], torch.float64, 1e-10, full=True)
