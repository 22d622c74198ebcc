"""A frozen Linear layer and its update are one step of the graph, with the numbers of autograd's own steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

import branchtune as bt
from branchtune.adapters.comb import Comb
from branchtune.adapters.lora_layers import LoRALinear
from branchtune.frozen_linear import FrozenCall
from contract_backbones import CONTRACTS, TREES, grow, randomise, weighted_sum
from small_backbones import Tokens
from small_backbones import grow as grow_tokens


class InPlace(Tokens):
    """Changes what an adapted layer returned, in place."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.tokens(images))
        x.mul_(2.0)
        return self.two(torch.relu_(x))


class Twice(Tokens):
    """Its layers' inputs have other uses, whose gradients are added."""

    def forward(self, images: Tensor) -> Tensor:
        x = self.one(self.tokens(images)) + 1
        return x + self.two(x)


class Scaled(bt.LoRA):
    """A family of the user's own that reads something else than the layer."""

    def apply(self, site: Any, nodes: Any, inputs: Tensor, output: Tensor) -> Tensor:
        return super().apply(site, nodes, 2 * inputs, output)


class Gated(bt.LoRA):
    """A family of the user's own that reads the layer's output again."""

    def apply(self, site: Any, nodes: Any, inputs: Tensor, output: Tensor) -> Tensor:
        return output + 0.5 * (super().apply(site, nodes, inputs, output) - output)


class Shrunk(LoRALinear):
    """Parameters of the user's own, of which the inputs are another tensor."""

    @staticmethod
    def adapt(site: Any, nodes: Any, inputs: Tensor, output: Tensor, scale: float) -> Tensor:
        return LoRALinear.adapt(site, nodes, 0.5 * inputs, output, scale)


class OwnParameters(bt.LoRA):
    def build(self, site: Any) -> nn.Module:
        return Shrunk(site, self.r)


class Doubled(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return 2 * value


def step_by_step() -> AbstractContextManager[object]:
    """The naive twin: inside, autograd takes every step alone."""
    return patch.object(FrozenCall, "of", lambda *_: None)


@contextmanager
def counted() -> Iterator[list[object]]:
    """Inside, a list of the layers that were taken together with their updates."""
    taken: list[object] = []
    adapted = FrozenCall.adapted

    def noted(self: FrozenCall, *args: Any) -> Tensor:
        taken.append(self.weight)
        return adapted(self, *args)

    with patch.object(FrozenCall, "adapted", noted):
        yield taken


def gradients(model: bt.MultiTaskModel, images: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(0)
    images = images.clone().requires_grad_()
    outputs = model.train()(images)
    names, parameters = zip(*((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True)
    found = torch.autograd.grad(weighted_sum(outputs), [images, *parameters], allow_unused=True)
    reached = {name: g for name, g in zip(("images", *names), found, strict=True) if g is not None}
    return reached | {f"of {name}": output.detach() for name, output in outputs.items()}


def check_equal(model: bt.MultiTaskModel, images: Tensor, together: int) -> None:
    with step_by_step():
        expected = gradients(model, images)
    with counted() as taken:
        found = gradients(model, images)
    assert len(taken) == together
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12, msg=name)


def tokens(backbone: nn.Module, **options: Any) -> bt.MultiTaskModel:
    return grow_tokens(backbone.double().eval(), target_modules=["one", "two"], **options)


IMAGES = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", ["vit_tiny", "swin_tiny"])
@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({"adapter": bt.LoRA(r=2, lora_alpha=3), "tree": TREES["interleaved"]}, 1.0),
        ({"adapter": bt.LoRA(r=2), "tree": TREES["1124"], "extras": ("norms",)}, 1.0),
        ({"adapter": bt.LoRA(r=2), "tree": TREES["1124"], "train_tasks": ["a"]}, None),
        # A block that runs again takes its layers twice.
        ({"adapter": bt.LoRA(r=2), "tree": TREES["1124"], "checkpoint_levels": True}, 2.0),
        # The adapters read another tensor than the layers.
        ({"adapter": bt.LoRA(r=2, lora_dropout=0.5), "tree": TREES["1124"]}, 0.0),
        ({"adapter": Scaled(r=2), "tree": TREES["1124"]}, 0.0),
        ({"adapter": Gated(r=2), "tree": TREES["1124"]}, 0.0),
        ({"adapter": OwnParameters(r=2), "tree": TREES["1124"]}, 0.0),
        # The streams read what the layers of the last blocks returned.
        ({"adapter": Comb(r=2), "tree": TREES["1124"]}, None),
    ],
    ids=["lora", "norms", "one task", "recomputed blocks", "dropout", "own family", "gated", "own parameters", "comb"],
)
def test_numbers_are_those_of_every_step_alone(name: str, options: dict[str, Any], share: float | None) -> None:
    model = randomise(grow(name, **options)).double()
    layers = [site for site in model.backbone.sites.values() if site.kind == "linear"]
    together = sum(takes_part(model, site) for site in layers) if share is None else int(share * len(layers))
    assert together < len(layers) or share
    check_equal(model, CONTRACTS[name].images(2, torch.float64), together)


def takes_part(model: bt.MultiTaskModel, site: Any) -> bool:
    """Whether something trains at the site, and no stream of a task reads what its layer returns."""
    parameters = [
        p for name, p in model.backbone.adapters.named_parameters() if f"{site.key}." in name and "stream" not in name
    ]
    streamed = isinstance(model.adapter, Comb) and site in model.adapter.task_sites(model.spec, site.level)
    return any(p.requires_grad for p in parameters) and not streamed


@pytest.mark.parametrize("backbone", [Tokens, InPlace, Twice])
def test_numbers_on_layers_with_a_trap(backbone: Callable[[], nn.Module]) -> None:
    check_equal(tokens(backbone()), IMAGES, 2)


def test_a_weight_that_trains_has_its_gradient() -> None:
    model = tokens(Tokens())
    layer = model.backbone.frozen.get_submodule("two")
    layer.weight = nn.Parameter(layer.weight.detach().clone())  # of this model alone
    check_equal(model, IMAGES, 1)
    layer.weight.requires_grad_(False)
    layer.bias = nn.Parameter(layer.bias.detach().clone())
    check_equal(model, IMAGES, 1)
    parametrize.register_parametrization(layer, "bias", Doubled())
    check_equal(model, IMAGES, 1)


def test_a_layer_with_a_weight_or_a_forward_of_its_own_is_left_to_autograd() -> None:
    model = tokens(Tokens())
    parametrize.register_parametrization(model.backbone.frozen.get_submodule("two"), "weight", Doubled())
    check_equal(model, IMAGES, 1)
    model = tokens(Tokens())
    layer: Any = model.backbone.frozen.get_submodule("two")
    layer.forward = lambda x: torch.tanh(nn.functional.linear(x, layer.weight, layer.bias))
    check_equal(model, IMAGES, 1)


def test_what_others_keep_of_a_layer_is_not_changed() -> None:
    backbone, seen = Tokens(), []
    backbone.two.register_forward_hook(lambda module, args, output: seen.append(output))
    model = tokens(backbone)
    seen.clear()
    check_equal(model, IMAGES, 1)
    torch.testing.assert_close(seen[0], seen[1], rtol=0, atol=0)
    images = IMAGES.clone().requires_grad_()
    model.train()(images)
    assert torch.autograd.grad(seen[-1].square().sum(), images)[0].abs().max() > 0


def test_a_hook_on_the_gradient_of_a_layer_hears_the_same() -> None:
    model = tokens(Tokens())
    heard: list[Tensor] = []
    model.backbone.frozen.get_submodule("two").register_full_backward_hook(
        lambda module, inputs, outputs: heard.extend([*inputs, *outputs])
    )
    check_equal(model, IMAGES, 2)
    for plain, ours in zip(heard[:2], heard[2:], strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-12)


def test_second_derivatives() -> None:
    model = tokens(Twice())

    def second() -> list[Tensor]:
        parameters = [p for p in model.backbone.adapters.parameters()]
        images = IMAGES.clone().requires_grad_()
        loss = torch.stack([o.square().sum() for o in model.train()(images).values()]).sum()
        first = torch.autograd.grad(loss, [images, *parameters], create_graph=True)
        return list(torch.autograd.grad(torch.stack([g.square().sum() for g in first]).sum(), [images, *parameters]))

    with step_by_step():
        expected = second()
    with counted() as taken:
        found = second()
    assert len(taken) == 2
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)


def test_a_graph_can_be_used_twice() -> None:
    model = tokens(Tokens())
    outputs = model.train()(IMAGES)
    parameters = [p for p in model.backbone.adapters.parameters()]
    first, again = (
        torch.autograd.grad(weighted_sum(outputs), parameters, retain_graph=keep, allow_unused=True)
        for keep in (True, False)
    )
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_gradients_of_many_directions_at_once() -> None:
    model = tokens(Tokens()).train()
    images = IMAGES.clone().requires_grad_()

    def batched() -> Tensor:
        output = torch.stack([maps[:, 0, 0, :4] for maps in model(images).values()]).flatten()
        directions = torch.eye(len(output), dtype=output.dtype)
        return torch.autograd.grad(output, images, directions, is_grads_batched=True)[0]

    with step_by_step():
        expected = batched()
    with counted() as taken:
        torch.testing.assert_close(batched(), expected, rtol=0, atol=1e-12)
    assert len(taken) == 2


@pytest.mark.parametrize("frozen", ["lora_A", "lora_B"])
def test_where_half_of_the_update_is_frozen_autograd_takes_every_step(frozen: str) -> None:
    model = tokens(Tokens())
    for name, parameter in model.backbone.adapters.named_parameters():
        parameter.requires_grad_(not name.endswith(frozen))
    check_equal(model, IMAGES, 0)


def test_under_autocast_or_a_dispatch_mode_autograd_takes_every_step() -> None:
    model = grow_tokens(Tokens().eval(), target_modules=["one", "two"]).train()
    with torch.autocast("cpu", torch.bfloat16), counted() as taken:
        model(IMAGES.float())
    assert not taken
    with FlopCounterMode(display=False), counted() as taken:
        model(IMAGES.float())
    assert not taken


def test_backward_under_an_autocast_that_the_forward_pass_was_not_under() -> None:
    model = grow_tokens(Tokens().eval(), target_modules=["one", "two"]).train()
    parameters = [p for p in model.backbone.adapters.parameters()]
    with counted() as taken:
        features = model.backbone(IMAGES.float())["b"][-1]
    assert len(taken) == 2
    expected = torch.autograd.grad(features.sum(), parameters, allow_unused=True, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(features.sum(), parameters, allow_unused=True)
    for ours, plain in zip(found, expected, strict=True):
        assert (ours is None) == (plain is None)
        if ours is not None and plain is not None:
            torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def test_on_the_meta_device() -> None:
    backbone = Tokens()
    backbone.two = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))  # type: ignore[assignment]
    model = grow_tokens(backbone.double().eval(), target_modules=["one", "two.1", "two.3"]).to("meta").train()
    outputs = model(IMAGES.to("meta"))
    weighted = torch.stack([output.sum() for output in outputs.values()]).sum()
    weighted.backward()
    assert all(p.grad is not None and p.grad.is_meta for p in model.backbone.adapters.parameters())
