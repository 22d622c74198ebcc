"""Every site acts, learns and is counted; at initialisation nothing has changed."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.spec import BackboneSpec, Feature
from contract_backbones import CONTRACTS, TASKS, grow, traced

SHARED = bt.TaskTree.shared(TASKS, 4)
ADAPTERS: dict[str, bt.Adapter] = {"lora": bt.LoRA(r=2), "bottleneck": bt.Bottleneck(reduction=4)}


@pytest.mark.parametrize("name", CONTRACTS)
def test_number_of_sites_is_the_committed_one(name: str) -> None:
    spec = traced(name)[1]
    found = (len(bt.LoRA().select_sites(spec)), len(bt.Bottleneck().select_sites(spec)))
    assert found == CONTRACTS[name].sites


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTRACTS)
def test_number_of_sites_is_the_committed_one_at_full_size(name: str) -> None:
    spec = traced(name, full=True)[1]
    found = (len(bt.LoRA().select_sites(spec)), len(bt.Bottleneck().select_sites(spec)))
    assert found == CONTRACTS[name].full_sites


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_every_site_changes_the_output(name: str, adapter: str) -> None:
    check_every_site_acts(name, adapter, full=False)


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_every_site_changes_the_output_at_full_size(name: str, adapter: str) -> None:
    check_every_site_acts(name, adapter, full=True)


def check_every_site_acts(name: str, adapter: str, full: bool) -> None:
    contract = CONTRACTS[name]
    model = grow(name, SHARED, ADAPTERS[adapter], full)
    images, inputs = contract.images(1, full=full), contract.inputs(1, full)
    with torch.no_grad():
        untouched = last_map(model, images, inputs)
        for site in model.backbone.sites.values():
            own = list(model.backbone.node_adapters(site.level, 0)[site.key].parameters())
            before = [parameter.clone() for parameter in own]
            for parameter in own:
                nn.init.normal_(parameter)
            assert not torch.equal(last_map(model, images, inputs), untouched), site.name
            for parameter, value in zip(own, before, strict=True):
                parameter.copy_(value)
        assert torch.equal(last_map(model, images, inputs), untouched)


def last_map(model: bt.MultiTaskModel, images: Tensor, inputs: dict[str, Tensor]) -> Tensor:
    return model.backbone(images, ["a"], inputs)["a"][-1]


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_at_initialisation_features_are_the_frozen_backbones_bit_for_bit(name: str, adapter: str) -> None:
    contract, (backbone, spec) = CONTRACTS[name], traced(name)
    images, inputs = contract.images(2), contract.inputs(2)
    with torch.no_grad():
        plain = plain_features(backbone, spec, images, inputs)
        shared = grow(name, SHARED, ADAPTERS[adapter]).backbone(images, inputs=inputs)
    for task in TASKS:
        for found, expected in zip(shared[task], plain, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.parametrize("name", CONTRACTS)
def test_at_initialisation_a_branch_is_the_frozen_backbone_on_the_folded_batch(name: str) -> None:
    contract, (backbone, spec) = CONTRACTS[name], traced(name)
    images, inputs = contract.images(2), contract.inputs(2)
    folded = {key: value.repeat(4, 1) for key, value in inputs.items()}
    with torch.no_grad():
        plain = plain_features(backbone, spec, images.repeat(4, 1, 1, 1), folded)
        branched = grow(name, bt.TaskTree.separate(TASKS, 4), bt.LoRA(r=2)).backbone(images, inputs=inputs)
    for index, task in enumerate(TASKS):
        for found, expected in zip(branched[task], plain, strict=True):
            assert torch.equal(found, expected[2 * index : 2 * index + 2])


def plain_features(backbone: nn.Module, spec: BackboneSpec, images: Tensor, inputs: dict[str, Tensor]) -> list[Tensor]:
    """The maps at the ends of the levels, without any code of branchtune's."""
    if spec.feature_indices is not None:
        return backbone.forward_intermediates(images, indices=[0, 1, 2, 3], intermediates_only=True)
    kept: dict[str, Tensor] = {}
    plain = copy.deepcopy(backbone)
    for level in spec.levels:
        plain.get_submodule(level.end).register_forward_hook(
            lambda module, args, output, end=level.end: kept.__setitem__(end, output)
        )
    getattr(plain, "forward_features", plain)(images, **inputs)
    return [as_map(kept[level.end], level.feature) for level in spec.levels]


def as_map(raw: Tensor, feature: Feature) -> Tensor:
    layout, height, width = feature.layout, feature.height, feature.width
    if layout == "NHWC":
        return raw.permute(0, 3, 1, 2)
    if layout == "NLC":
        return raw[:, feature.prefix_tokens :].mT.reshape(len(raw), -1, height, width)
    return raw


def test_layers_whose_weight_is_read_directly_are_dead_with_a_reason() -> None:
    spec = traced("swinv2_tiny")[1]
    qkv = [name for name in spec.dead if name.endswith("attn.qkv")]
    assert len(qkv) == 6
    assert "never called" in spec.dead["layers.0.blocks.0.attn.qkv"]
    assert "batch" in spec.dead["layers.0.blocks.0.attn.cpb_mlp.0"]
    assert not {site.name for site in spec.sites} & set(spec.dead)


@pytest.mark.parametrize("name", CONTRACTS)
def test_dead_layers_elsewhere_are_only_the_stem(name: str) -> None:
    dead = traced(name)[1].dead
    if name != "swinv2_tiny":
        assert dead
        assert all("before the first level" in reason for reason in dead.values())
