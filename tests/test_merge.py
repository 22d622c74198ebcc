"""Merging: what is shared and what is copied, what is refused, and modules that are used in unusual ways."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune.adapters.comb import Comb
from contract_backbones import relative_error
from small_backbones import Tokens, grow
from small_model import small_model
from test_adapters_lora import CONVOLUTIONS, FORKED, OneLayer
from test_adapters_lora import Tokens as LinearTokens
from test_adapters_lora import grow as grow_layer
from test_backbone_odd import KeywordNet

GRANDCHILDREN = bt.TaskTree([[["a", "b", "c"]], [["a", "b"], ["c"]], [["a", "b"], ["c"]], [["a"], ["b"], ["c"]]])


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def on_tokens(**options: Any) -> bt.MultiTaskModel:
    return grow(Tokens(), target_modules=["one", "two"], **options).double()


def assert_same(model: nn.Module, other: nn.Module, x: Tensor, tolerance: float = 1e-10, **inputs: Any) -> None:
    with torch.no_grad():
        expected, found = (m(x, **inputs) for m in (model, other))
    assert list(expected) == list(found)
    for name in expected:
        assert relative_error(found[name], expected[name]) < tolerance, name


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_every_kind_of_convolution(options: dict[str, Any]) -> None:
    model = grow_layer(OneLayer(nn.Conv2d(8, 16, **options)), FORKED)
    merged = model.merge("all")
    assert merged.count_parameters()["adapters"] == 0
    x = torch.randn(3, 3, 12, 12, dtype=torch.float64)
    for task, (expected,) in model.backbone(x).items():
        assert relative_error(merged.backbone(x)[task][0], expected) < 1e-12


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_without_and_with_bias(bias: bool) -> None:
    model = grow_layer(LinearTokens(nn.Linear(8, 5, bias=bias)), FORKED)
    assert_same(model, model.merge("all"), torch.randn(3, 3, 12, 12, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("options", [{}, {"extras": ("norms",)}], ids=["frozen", "extras"])
def test_the_model_is_left_as_it_was(options: dict[str, Any]) -> None:
    model = small_model(tree=GRANDCHILDREN, **options).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    hooks = {name: list(m._forward_hooks.values()) for name, m in model.named_modules()}
    training = {name: m.training for name, m in model.named_modules()}
    model.merge("all")
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert trains == {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert hooks == {name: list(m._forward_hooks.values()) for name, m in model.named_modules()}
    assert training == {name: m.training for name, m in model.named_modules()}


def test_unchanged_weights_are_shared_and_only_adapted_ones_are_copied() -> None:
    model = small_model(tree=GRANDCHILDREN)
    merged = model.merge("all")
    theirs = {p.untyped_storage().data_ptr() for p in model.backbone.frozen.parameters()}
    own = {p.untyped_storage().data_ptr(): p.numel() for p in merged.backbone.parameters()}
    copied = {pointer: size for pointer, size in own.items() if pointer not in theirs}
    counts = merged.count_parameters()
    sites = model.backbone.sites.values()
    groups = model.tree.group_counts
    assert sum(copied.values()) == counts["merged"]
    assert counts["merged"] == sum(groups[s.level] * s.in_channels * s.out_channels for s in sites)
    assert sum(c.parameters_copied for c in merged.choices) == counts["merged"] - sum(
        s.in_channels * s.out_channels for s in sites
    )
    unmerged = model.count_parameters()
    assert counts["frozen"] == unmerged["frozen"] - sum(s.in_channels * s.out_channels for s in sites)
    assert (counts["adapters"], counts["decoders"]) == (0, unmerged["decoders"])


@pytest.mark.parametrize("levels", ["all", "none"])
def test_a_merged_model_is_a_snapshot(levels: str) -> None:
    model = on_tokens()
    merged, x = model.merge(levels), images()
    before = merged(x)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)
    for name, output in merged(x).items():
        assert torch.equal(output, before[name])
        assert not torch.allclose(model(x)[name], output)


def test_it_is_for_inference_alone() -> None:
    merged = on_tokens().merge()
    assert isinstance(merged, bt.MultiTaskModel)
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not any(module.training for module in merged.train().modules())
    for part in (merged, merged.backbone):
        assert part.requires_grad_(False) is part
        with pytest.raises(bt.UserError, match="a merged model does not train: train the model that it was made from"):
            part.requires_grad_()
    with pytest.raises(bt.UserError, match="nothing in the model trains"):
        bt.WeightedSum().build(merged)
    with pytest.raises(bt.UserError, match="merged already"):
        merged.merge()
    task = next(iter(merged.tasks))
    for change in (lambda: merged.remove_task(task), lambda: merged.training_only([task])):
        with pytest.raises(bt.UserError, match="this model is merged: change the tasks of the one"):
            change()


def test_saving_is_refused_and_merging_after_loading_is_the_way(tmp_path: Path) -> None:
    model = on_tokens()
    with pytest.raises(bt.UserError, match=r"a merged model is not saved.*from_pretrained\(path\).merge\(\)"):
        model.merge().save_pretrained(tmp_path / "model")
    model.save_pretrained(tmp_path / "model")
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "model", backbone=model.backbone.frozen)
    assert_same(model, loaded.merge("all"), images())


def test_a_deep_copy_and_a_call_with_gradients_to_the_images() -> None:
    model = on_tokens()
    merged = copy.deepcopy(model.merge("all"))
    grads = []
    for m in (model, merged):
        x = images().requires_grad_()
        m(x)["b"].square().sum().backward()
        assert x.grad is not None
        grads.append(x.grad)
    assert relative_error(grads[1], grads[0]) < 1e-10


def test_built_in_inference_mode_and_on_a_model_with_dropout() -> None:
    model = small_model(adapter=bt.LoRA(r=2, lora_dropout=0.5)).train()
    with torch.inference_mode():
        merged = model.merge("all")
    assert_same(model.eval(), merged, images())


@pytest.mark.parametrize(
    ("options", "family"),
    [({"adapter": bt.Bottleneck()}, "Bottleneck acts"), ({"adapter": Comb(r=2), "tree": None}, "Comb has streams")],
    ids=["bottleneck", "comb"],
)
def test_families_that_are_no_change_of_a_weight_stay_live(options: dict[str, Any], family: str) -> None:
    model = small_model(**options).eval()
    for levels in ("all", [1]):
        with pytest.raises(bt.UserError, match=rf"level \d cannot be merged: {family} .*use levels='auto'"):
            model.merge(levels)
    merged = model.merge()
    assert not any(choice.merged for choice in merged.choices)
    assert all(family in line for line in merged.describe().splitlines())
    assert_same(model, merged, images())
    assert merged.count_parameters() == model.count_parameters() | {"merged": 0}


@pytest.mark.parametrize("options", [{}, {"train_backbone": True}], ids=["decoders", "full"])
def test_a_model_without_adapters_has_nothing_to_merge(options: dict[str, Any]) -> None:
    model = small_model(tree=None, adapter=None, **options).eval()
    merged = model.merge("all")
    assert "it has no adapters" in merged.describe()
    assert_same(model, merged, images())


def test_a_layer_that_is_more_than_its_weight_stays_live() -> None:
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight / self.weight.flatten(1).std(1)[:, None, None, None], self.bias)

    model = grow_layer(OneLayer(Standardised(8, 6, 1)), FORKED)
    with pytest.raises(bt.UserError, match=r"layer \(Standardised\) does more than multiply by its weight"):
        model.merge("all")
    assert "does more than" in model.merge().describe()
    normed = grow_layer(LinearTokens(nn.utils.parametrizations.weight_norm(nn.Linear(8, 5))), FORKED)
    with pytest.raises(bt.UserError, match="layer computes its weight anew in every call"):
        normed.merge("all")


def test_a_backbone_that_also_reads_an_adapted_weight_is_refused() -> None:
    class Tied(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            x = self.one(self.tokens(images))
            return self.two(torch.tanh(F.linear(x, self.two.weight)))

    model = grow(Tied(), target_modules=["one", "two"]).double()
    with pytest.raises(bt.UserError, match="at level 1 change when adapters are merged"):
        model.merge("all")
    assert_same(model, model.merge([0]), images())


def test_code_that_reads_attributes_of_a_merged_module() -> None:
    class Reads(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(self.tokens(images)))) / self.two.out_features

    model = grow(Reads(), target_modules=["one", "two"]).double()
    merged = model.merge("all")
    assert_same(model, merged, images())
    with pytest.raises(AttributeError, match="no attribute 'heads'"):
        _ = merged.backbone.frozen.two.heads
    with pytest.raises(bt.UserError, match="a merged level runs inside its model's call"):
        merged.backbone.frozen(images())


def test_a_layer_called_twice_and_one_shared_by_two_names() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)
            self.same = self.layer

        def forward(self, x: Tensor) -> Tensor:
            return self.same(torch.tanh(self.layer(x)))

    backbone = Tokens()
    backbone.two = Twice()
    model = grow(backbone, target_modules=["one", "layer"]).double()
    assert_same(model, model.merge("all"), images())


@pytest.mark.parametrize("carry", [False, True], ids=["from_the_top", "handed_on_by_a_block"])
def test_masks_and_modules_that_return_tuples(carry: bool) -> None:
    model = grow(KeywordNet(carry), target_modules=["layer"], example_inputs={"mask": torch.ones(1, 16)}).double()
    mask = torch.rand(2, 16, dtype=torch.float64)
    merged = model.merge("all", example_inputs={"mask": torch.ones(1, 16, dtype=torch.float64)})
    assert_same(model, merged, images(), mask=mask)
    assert_same(model, merged, images())


def test_tuples_that_were_none_when_merged_are_refused() -> None:
    model = grow(KeywordNet(carry=True), target_modules=["layer"], example_inputs={"mask": torch.ones(1, 16)})
    merged = model.merge("all")
    with pytest.raises(bt.UserError, match=r"returns several tensors.*pass merge\(example_inputs=...\)"):
        merged(images().float(), mask=torch.rand(2, 16))


def test_an_input_that_the_backbone_needs_is_asked_for() -> None:
    class Needs(Tokens):
        def forward(self, images: Tensor, scale: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(self.tokens(images))) * scale[:, :, None])

    example = {"scale": torch.ones(1, 1)}
    model = grow(Needs(), target_modules=["one", "two"], example_inputs=example).double()
    with pytest.raises(bt.UserError, match="pass example_inputs="):
        model.merge()
    merged = model.merge("all", example_inputs={"scale": torch.ones(1, 1, dtype=torch.float64)})
    assert_same(model, merged, images(), scale=torch.rand(2, 1, dtype=torch.float64))


class Blocks(Tokens):
    """Four blocks in a Sequential that is called as a whole, the third without an adapter."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(8, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 8)]
        self.blocks = nn.Sequential(nn.Linear(8, 8), *layers)

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(self.tokens(images))


def test_neighbours_in_a_sequential_run_as_one() -> None:
    model = grow(Blocks(), ["blocks.0", "blocks.1:blocks.4"], target_modules=["blocks.0", "1", "blocks.4"]).double()
    merged = model.merge("all")
    kinds = [type(module).__name__ for module in merged.backbone.frozen.blocks.children()]
    assert kinds == ["Linear", "PerGroup", "Identity", "Identity", "Identity"]
    assert_same(model, merged, images())


def test_what_runs_between_levels_stays_behind_the_features() -> None:
    tree = [[["b"], ["c"]], [["b"], ["c"]]]
    tasks = [bt.Depth("b"), bt.Depth("c")]
    adapter = bt.LoRA(r=2, target_modules=["blocks.0", "blocks.1", "blocks.4"])
    options: dict[str, Any] = {"levels": ["blocks.0", "blocks.3:blocks.4"], "image_size": 32}
    model = bt.MultiTaskModel(Blocks(), tasks, tree, adapter, bt.LightDecoder(8), **options).double().eval()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.3)
    merged = model.merge("all")
    kinds = [type(module).__name__ for module in merged.backbone.frozen.blocks.children()]
    assert kinds == ["PerGroup", "PerGroup", "Sequential", "Tanh", "PerGroup"]
    assert_same(model, merged, images())
