"""What adapters read after an activation or a normalisation is not kept: the same gradients from less memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import branchtune as bt
from branchtune.adapters.comb import Comb
from contract_backbones import CONTRACTS, TREES, grow, randomise, weighted_sum
from kept_inputs import keeping_all
from small_backbones import Tokens
from small_backbones import grow as grow_tokens

LORA = bt.LoRA(r=2, lora_alpha=3)
FAST = ("vit_tiny", "swin_tiny")


def gradients(
    model: bt.MultiTaskModel, images: Tensor, inputs: Mapping[str, Any], autocast: bool = False
) -> dict[str, Tensor]:
    model.train().zero_grad(set_to_none=True)
    torch.manual_seed(11)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = weighted_sum({name: output.float() for name, output in model(images, **inputs).items()})
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def held(model: bt.MultiTaskModel, images: Tensor) -> int:
    """Bytes that one forward pass leaves behind for the backward pass."""
    model.train()
    gc.collect()  # what older tests left behind would otherwise be released in this pass, and count as less held
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            outputs = model.backbone(images)
    finally:
        gc.enable()
    assert outputs
    assert record.profiler is not None
    return sum(e.nbytes() for e in record.profiler.kineto_results.events() if e.name() == "[memory]")


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CONTRACTS])
def test_gradients_equal_those_with_everything_kept(name: str, autocast: bool) -> None:
    contract = CONTRACTS[name]
    model = randomise(grow(name, TREES["interleaved"], LORA, extras=("norms",)))
    images, inputs = contract.images(2), contract.inputs(2)
    with keeping_all():
        expected = gradients(model, images, inputs, autocast)
    found = gradients(model, images, inputs, autocast)
    assert set(found) == set(expected)
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=0, atol=1e-7, msg=key)


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"adapter": LORA, "tree": TREES["1124"]}, 0.8),
        ({"adapter": Comb(r=2), "tree": None}, 0.75),
        # Dropout makes another tensor, which is kept.
        ({"adapter": bt.LoRA(r=2, lora_dropout=0.5), "tree": TREES["1124"]}, 1.0),
        # A block that runs again keeps its input alone.
        ({"adapter": LORA, "tree": TREES["1124"], "checkpoint_levels": True}, 1.0),
    ],
    ids=["lora", "comb", "dropout", "recomputed blocks"],
)
def test_less_is_held(options: dict[str, Any], share: float) -> None:
    model = grow("vit_tiny", **options)
    images = CONTRACTS["vit_tiny"].images(4)
    with keeping_all():
        all_of_it, expected = held(model, images), gradients(model, images, {})
    assert 0 < held(model, images) <= share * all_of_it
    found = gradients(model, images, {})
    for key, gradient in expected.items():
        torch.testing.assert_close(found[key], gradient, rtol=0, atol=1e-7, msg=key)


class Noisy(nn.GELU):
    """Of the user's own: another output in every step."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * torch.rand_like(y) if self.training else y


class Activated(Tokens):
    """A layer reads what a function makes of the output of another, with no fork between them."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.two = nn.Sequential(nn.Linear(8, 32), act, nn.Linear(32, 8))  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("act", "again"),
    [(nn.GELU(), True), (nn.SiLU(inplace=True), False), (Noisy(), False), (nn.ReLU(), False)],
    ids=["gelu", "in place", "random", "keeps its output"],
)
def test_only_functions_that_allow_it_are_run_again(act: nn.Module, again: bool) -> None:
    model = grow_tokens(Activated(act), target_modules=["two.0", "two.2"])
    images = torch.rand(2, 3, 32, 32)
    with keeping_all():
        all_of_it, expected = held(model, images), gradients(model, images, {})
    less, found = held(model, images) < all_of_it, gradients(model, images, {})
    assert less == again
    assert expected
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def doubled(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return 2 * output


def hooked() -> nn.Module:
    act = nn.GELU()
    act.register_forward_hook(doubled)
    return act


def replaced() -> nn.Module:
    act = nn.GELU()
    act.forward = lambda x: 2 * nn.functional.gelu(x)  # type: ignore[method-assign]
    return act


@pytest.mark.parametrize("act", [hooked, replaced])
def test_what_the_user_makes_of_an_output_is_kept(act: Callable[[], nn.Module]) -> None:
    model, images = grow_tokens(Activated(act()), target_modules=["two.0", "two.2"]), torch.rand(2, 3, 32, 32)
    with keeping_all():
        expected = gradients(model, images, {})
    found = gradients(model, images, {})
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_what_a_hook_of_all_modules_makes_of_an_output_is_kept() -> None:
    model, images = grow_tokens(Activated(nn.GELU()), target_modules=["two.0", "two.2"]), torch.rand(2, 3, 32, 32)
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, output: 2 * output if isinstance(module, nn.GELU) else None
    )
    try:
        with keeping_all():
            expected = gradients(model, images, {})
        found = gradients(model, images, {})
    finally:
        hook.remove()
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


class Shifted(Activated):
    """Changes in place what the function returned, before the next layer reads it."""

    def forward(self, images: Tensor) -> Tensor:
        first, act, last = self.two  # type: ignore[misc]
        x = act(first(torch.tanh(self.one(self.tokens(images)))))
        x += 1.0
        return torch.as_tensor(last(x))


def test_what_is_changed_in_place_before_a_layer_reads_it_is_kept() -> None:
    model = grow_tokens(Shifted(nn.GELU()), ("one", "two.0:two.2"), target_modules=["two.0", "two.2"])
    images = torch.rand(2, 3, 32, 32)
    with keeping_all():
        expected = gradients(model, images, {})
    found = gradients(model, images, {})
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())


def test_a_graph_can_be_used_twice_and_differentiated_again() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model = grow_tokens(Activated(nn.GELU()), target_modules=["two.0", "two.2"]).double().train()
    parameters = [p for p in model.backbone.adapters.parameters() if p.requires_grad]
    found = []
    for way in (nullcontext(), keeping_all()):
        with way:
            loss = weighted_sum(model(images))
        first = torch.autograd.grad(loss, parameters, create_graph=True)
        again = torch.autograd.grad(loss, parameters, create_graph=True)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        found.append(torch.autograd.grad(sum((g**2).sum() for g in first), parameters))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)
