"""torch.compile makes one graph of a tree, for inference and for training, with the numbers of the model itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import branchtune as bt
from small_model import small_model


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of dynamo's own
        yield
    torch._dynamo.reset()


def gradients(model: bt.MultiTaskModel, call: Any, x: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    sum(output.square().sum() for output in call(x).values()).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(
    "adapter", [pytest.param(bt.LoRA(r=2), marks=pytest.mark.slow), bt.Comb(r=2, r_task=2)], ids=["lora", "comb"]
)
@pytest.mark.parametrize("training", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["inference", "training"])
def test_a_tree_is_one_graph(adapter: bt.LoRA, training: bool) -> None:
    model = small_model(adapter=adapter).train(training)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    made = torch.compile(model, backend="aot_eager" if training else "eager", fullgraph=True)
    if training:
        expected, found = gradients(model, model, x), gradients(model, made, x)
        assert found.keys() == expected.keys()
    else:
        with torch.no_grad():
            expected, found = model(x), made(x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-9)
