"""LoRA at every kind of layer: what it computes, counts and starts from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune.adapters.adapter import match_sites
from contract_backbones import relative_error, traced

TREE = bt.TaskTree([[["b", "c"]]])
FORKED = bt.TaskTree([[["b"], ["c"]]])

CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "1x1": {"kernel_size": 1},
    "1x1_stride": {"kernel_size": 1, "stride": (2, 3)},
    "1x1_padding": {"kernel_size": 1, "padding": 1},
    "1x1_grouped": {"kernel_size": 1, "groups": 2},
    "3x3": {"kernel_size": 3, "padding": 1},
    "3x5_stride_dilation": {"kernel_size": (3, 5), "stride": 2, "padding": (1, 2), "dilation": (1, 2)},
    "3x3_grouped": {"kernel_size": 3, "padding": 1, "groups": 4},
    "patchify": {"kernel_size": 4, "stride": 4},
    "depthwise": {"kernel_size": 3, "padding": 1, "groups": 8},
    "depthwise_stride": {"kernel_size": 5, "padding": 2, "stride": 2, "groups": 8},
}


class OneLayer(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 8, 1), layer

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.stem(images))


class Tokens(OneLayer):
    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.stem(images).permute(0, 2, 3, 1).flatten(1, 2))


def grow(backbone: nn.Module, tree: bt.TaskTree, adapter: bt.LoRA | None = None) -> bt.MultiTaskModel:
    adapter = adapter or bt.LoRA(r=2, lora_alpha=5, target_modules=["layer"])
    tasks = [bt.Depth(task) for task in tree.tasks]
    model = bt.MultiTaskModel(backbone, tasks, tree, adapter, levels=["layer"], image_size=12).double().eval()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter)
    return model


def merged_change(layer: nn.Module, node: nn.Module) -> Tensor:
    """s dW, formed explicitly one channel group at a time."""
    if hasattr(node, "kernel"):
        return node.kernel
    down, up, groups = node.lora_A.flatten(1), node.lora_B.flatten(1), getattr(layer, "groups", 1)
    parts = [u @ d for u, d in zip(up.chunk(groups), down.chunk(groups), strict=True)]
    return 2.5 * torch.cat(parts).view_as(layer.weight)


def check_merged(backbone: nn.Module, tree: bt.TaskTree) -> None:
    model = grow(backbone, tree)
    images = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    features = model.backbone(images)
    frozen = model.backbone.frozen
    inputs = frozen.stem(images)
    for task in tree.tasks:
        node = model.backbone.node_adapters(0, tree.path(task)[0])["layer"]
        weight = frozen.layer.weight + merged_change(frozen.layer, node)
        if isinstance(frozen.layer, nn.Linear):
            expected = F.linear(inputs.permute(0, 2, 3, 1), weight, frozen.layer.bias).permute(0, 3, 1, 2)
        else:
            geometry = (frozen.layer.stride, frozen.layer.padding, frozen.layer.dilation, frozen.layer.groups)
            expected = F.conv2d(inputs, weight, frozen.layer.bias, *geometry)
        assert relative_error(features[task][0], expected) < 1e-10
    predicted = model.cost().parameters
    assert predicted == model.count_parameters()["adapters"]


@pytest.mark.parametrize("tree", [TREE, FORKED], ids=["shared", "forked"])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_convolution_is_the_merged_convolution(options: dict[str, Any], tree: bt.TaskTree) -> None:
    check_merged(OneLayer(nn.Conv2d(8, 16, **options)), tree)


@pytest.mark.parametrize("tree", [TREE, FORKED], ids=["shared", "forked"])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_the_merged_linear(bias: bool, tree: bt.TaskTree) -> None:
    check_merged(Tokens(nn.Linear(8, 5, bias=bias)), tree)


@pytest.mark.parametrize(
    ("layer", "parameters"),
    [
        (nn.Conv2d(8, 16, 1), 3 * (8 + 16)),
        (nn.Conv2d(8, 16, 3, padding=1), 3 * (8 * 9 + 16)),
        (nn.Conv2d(8, 16, 3, padding=1, groups=4), 3 * (8 * 9 + 16)),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8), 8 * 9),
        (nn.Conv2d(8, 16, (3, 1), padding=(1, 0), groups=8), 16 * 3),
    ],
    ids=["1x1", "3x3", "grouped", "depthwise", "depthwise_multiplier"],
)
def test_number_of_parameters(layer: nn.Module, parameters: int) -> None:
    model = grow(OneLayer(layer), TREE, bt.LoRA(r=3, target_modules=["layer"]))
    assert model.count_parameters()["adapters"] == parameters


def test_number_of_parameters_of_a_linear_per_group() -> None:
    model = grow(Tokens(nn.Linear(8, 5)), FORKED, bt.LoRA(r=3, target_modules=["layer"]))
    assert model.count_parameters()["adapters"] == 2 * 3 * (8 + 5)


def test_initialisation_is_zero_up_and_kaiming_uniform_down() -> None:
    torch.manual_seed(0)
    model = bt.MultiTaskModel(
        Tokens(nn.Linear(8, 64)),
        [bt.Depth("b")],
        adapter=bt.LoRA(r=64, target_modules=["layer"]),
        levels=["layer"],
        image_size=8,
    )
    node = model.backbone.node_adapters(0, 0)["layer"]
    assert node.lora_A.shape == (64, 8)
    assert node.lora_B.shape == (64, 64)
    assert node.lora_B.abs().max() == 0
    bound = 8**-0.5
    assert 0.9 * bound < node.lora_A.abs().max() <= bound


def test_rank_pattern_sets_rank_and_scale_per_level() -> None:
    adapter = bt.LoRA(r=4, lora_alpha=8, rank_pattern={"2": 1, 3: 16})
    backbone, spec = traced("vit_tiny")
    model = bt.MultiTaskModel(backbone, [bt.Depth("b")], adapter=adapter, spec=spec)
    sites = [next(s for s in spec.sites if s.level == level and s.kind == "linear") for level in range(4)]
    assert [adapter.scale(site) for site in sites] == [2.0, 2.0, 8.0, 0.5]
    ranks = [model.backbone.node_adapters(s.level, 0)[s.key].lora_A.shape[0] for s in sites]
    assert ranks == [4, 4, 1, 16]
    assert model.cost().parameters == model.count_parameters()["adapters"] == (4 + 4 + 1 + 16) * 16 * 24


def test_alpha_pattern_sets_the_scale_of_its_levels() -> None:
    adapter = bt.LoRA(r=4, lora_alpha=8, rank_pattern={2: 1}, alpha_pattern={"2": 3, 3: 16})
    _, spec = traced("vit_tiny")
    sites = [next(s for s in spec.sites if s.level == level and s.kind == "linear") for level in range(4)]
    assert [adapter.scale(site) for site in sites] == [2.0, 2.0, 3.0, 4.0]


def test_adapter_dropout_has_the_right_mean() -> None:
    torch.manual_seed(0)
    adapter = bt.LoRA(r=2, lora_alpha=5, lora_dropout=0.25, target_modules=["layer"])
    model = grow(Tokens(nn.Linear(8, 5)), FORKED, adapter)
    images = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    with torch.no_grad():
        expected = model.eval().backbone(images)["b"][0]
        drawn = [model.train().backbone(images)["b"][0] for _ in range(400)]
    assert not torch.equal(drawn[0], drawn[1])
    assert relative_error(torch.stack(drawn).mean(0), expected) < 0.1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (["fc1"], 4),
        (["fc1", "attn.proj"], 8),
        (["blocks.0.mlp.fc1"], 1),
        (r"blocks\.[01]\..*fc[12]", 4),
        (r".*\.qkv", 4),
    ],
)
def test_target_modules_choose_as_in_peft(target: Any, expected: int) -> None:
    sites = bt.LoRA(target_modules=target).select_sites(traced("vit_tiny")[1])
    assert len(sites) == expected
    order = [site.name for site in traced("vit_tiny")[1].sites]
    assert [order.index(site.name) for site in sites] == sorted(order.index(site.name) for site in sites)


def test_a_regex_must_match_the_whole_name() -> None:
    spec = traced("vit_tiny")[1]
    layers = [site for site in spec.sites if site.kind != "block"]
    with pytest.raises(bt.UserError, match="unknown target module 'fc1'"):
        match_sites(layers, "fc1", spec)


def test_target_modules_add_a_layer_beyond_the_defaults() -> None:
    spec = traced("swin_tiny")[1]
    assert len(bt.LoRA(target_modules=["reduction"]).select_sites(spec)) == 3
    assert not [site for site in bt.LoRA().select_sites(spec) if site.name.endswith("reduction")]


def test_default_sites_of_swin_are_the_four_projections() -> None:
    names = {site.name.split(".", 4)[-1] for site in bt.LoRA().select_sites(traced("swin_tiny")[1])}
    assert names == {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}


def test_default_sites_without_a_1x1_convolution_are_the_dense_ones() -> None:
    sites = bt.LoRA().select_sites(traced("resnet18")[1])
    assert {site.kernel_size for site in sites} == {(3, 3), (1, 1)}


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.Conv2d(8, 8, 1)])
def test_what_others_keep_of_a_layer_is_not_changed_in_place(layer: nn.Module) -> None:
    backbone = OneLayer(layer) if isinstance(layer, nn.Conv2d) else Tokens(layer)
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    model = grow(backbone.eval(), TREE).eval()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter)
    images = torch.rand(2, 3, 8, 8).to(next(model.parameters()))
    seen.clear()
    expected = model.backbone(images)["b"][-1]
    with torch.no_grad():
        found = [model.backbone(images)["b"][-1] for _ in range(2)]
    for value in found:
        torch.testing.assert_close(value, expected.detach())
    for value in seen[1:]:
        torch.testing.assert_close(value, seen[0].detach())


def test_what_a_forward_of_the_users_own_keeps_is_not_changed_in_place() -> None:
    model = grow(Tokens(nn.Linear(8, 8)).eval(), TREE)
    layer: Any = model.backbone.frozen.get_submodule("layer")
    kept: list[tuple[Tensor, Tensor]] = []

    def forward(x: Tensor) -> Tensor:
        output = F.linear(x, layer.weight, layer.bias)
        kept.append((output, output.clone()))
        return output

    layer.forward = forward
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        first, again = (model.backbone(images)["b"][-1] for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    for output, expected in kept:
        torch.testing.assert_close(output, expected, rtol=0, atol=0)


def test_without_gradients_on_the_meta_device() -> None:
    model = grow(Tokens(nn.Linear(8, 8)).eval(), TREE).eval().to("meta")
    with torch.no_grad():
        assert model.backbone(torch.rand(2, 3, 8, 8, device="meta", dtype=next(model.parameters()).dtype))["b"][
            -1
        ].is_meta
