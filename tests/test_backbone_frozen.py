"""What is frozen stays as it is: statistics, random draws per row, and activations that nobody needs."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from contract_backbones import CONTRACTS, TASKS, TREES, four_tasks, grow, randomise, weighted_sum
from kept_inputs import keeping_all

LORA = bt.LoRA(r=2)


@pytest.mark.parametrize("options", [{}, {"extras": ("norms",)}], ids=["frozen", "extras"])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv4_conv_small", "efficientnet_lite0"])
def test_frozen_batch_norm_keeps_its_statistics_whatever_train_says(name: str, options: dict) -> None:
    model = randomise(grow(name, TREES["1124"], LORA, **options))
    images = CONTRACTS[name].images(2)
    statistics = {k: v.clone() for k, v in model.backbone.frozen.named_buffers()}
    expected = model(images)
    norms = [m for m in model.backbone.frozen.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms

    def each_module() -> None:
        for module in model.modules():
            module.train()

    for switch in (model.train, model.backbone.train, model.backbone.frozen.train, each_module):
        switch()
        outputs = model(images)
        assert not any(norm.training for norm in norms)
        for task, output in outputs.items():
            assert torch.equal(output, expected[task])
    weighted_sum(outputs).backward()
    for key, value in model.backbone.frozen.named_buffers():
        assert torch.equal(value, statistics[key]), key


def test_full_fine_tuning_moves_its_own_statistics() -> None:
    model = grow("resnet18", bt.TaskTree.shared(TASKS, 4), None, train_backbone=True).train()
    before = model.backbone.frozen.layer1[0].bn1.running_mean.clone()
    model(CONTRACTS["resnet18"].images(2))
    assert not torch.equal(model.backbone.frozen.layer1[0].bn1.running_mean, before)


@pytest.mark.parametrize("options", [{"proj_drop_rate": 0.5}, {"drop_path_rate": 0.9}], ids=["dropout", "drop_path"])
def test_random_draws_differ_between_branches(options: dict) -> None:
    contract = CONTRACTS["vit_tiny"]
    import timm

    backbone = timm.create_model(contract.model, **contract.reduced, **options)
    tree = bt.TaskTree.separate(TASKS, 4)
    model = bt.MultiTaskModel(backbone, four_tasks(), tree, LORA, image_size=64)
    images = contract.images(8)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn, again = model.train().backbone(images), model.eval().backbone(images)
    assert not torch.equal(drawn["a"][-1], drawn["b"][-1])
    assert torch.equal(again["a"][-1], again["b"][-1])


def test_adapter_dropout_draws_per_branch_and_only_in_training() -> None:
    model = randomise(grow("vit_tiny", bt.TaskTree.separate(TASKS, 4), bt.LoRA(r=2, lora_dropout=0.5)))
    plain = randomise(grow("vit_tiny", bt.TaskTree.separate(TASKS, 4), bt.LoRA(r=2)))
    images = CONTRACTS["vit_tiny"].images(2)
    for task, output in model(images).items():
        assert torch.equal(output, plain(images)[task])
    assert not torch.equal(model.train()(images)["a"], plain(images)["a"])


class SavedBytes:
    """Counts what autograd keeps for the backward pass, weights aside."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {p.data_ptr() for p in model.parameters()} | {b.data_ptr() for b in model.buffers()}
        self.count = 0

    def __enter__(self) -> SavedBytes:
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self.hooks.__exit__(*error)

    def pack(self, tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in self.weights:
            self.count += tensor.nbytes
        return tensor


@pytest.mark.parametrize("name", ["swin_tiny", "vit_tiny", "resnet18", "pvt_v2_b0", "hiera_tiny"])
def test_nothing_before_the_first_trainable_parameter_keeps_activations(name: str) -> None:
    contract = CONTRACTS[name]
    tree = TREES["1124"]
    everywhere = grow(name, tree, LORA)
    last = [site.name for site in everywhere.backbone.sites.values() if site.level == 3]
    late = grow(name, tree, bt.LoRA(r=2, target_modules=last))
    first_site = late.backbone.frozen.get_submodule(next(iter(late.backbone.sites)))
    before_first_site: list[int] = []
    saved = {}
    for model in (everywhere, late):
        with SavedBytes(model) as bytes_saved, keeping_all() if model is everywhere else nullcontext():
            if model is late:
                first_site.register_forward_pre_hook(lambda *_: before_first_site.append(bytes_saved.count))
            features = model.backbone(contract.images(2))
        saved[model] = bytes_saved.count
        assert features["a"][-1].requires_grad
    assert before_first_site == [0]
    assert 0 < saved[late] < saved[everywhere] / 2
    assert not features["a"][2].requires_grad


def test_trainable_extras_move_that_point() -> None:
    images = CONTRACTS["swin_tiny"].images(2)
    last = bt.LoRA(r=2, target_modules=r"layers\.3\..*")
    counts = []
    for extras in ((), ("norms",)):
        model = grow("swin_tiny", TREES["1124"], last, extras=extras)
        with SavedBytes(model) as saved:
            model.backbone(images)
        counts.append(saved.count)
    assert counts[1] > 2 * counts[0]
