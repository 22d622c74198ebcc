"""The user's backbone is left as it was; models share its frozen weights, and nothing else."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from contract_backbones import CONTRACTS, TASKS, TREES, grow, randomise, relative_error, traced, weighted_sum

LORA = bt.LoRA(r=2)
NAMES = tuple(CONTRACTS)


def state_of(backbone: nn.Module) -> dict[str, Any]:
    return {
        "weights": {name: value.clone() for name, value in backbone.state_dict().items()},
        "storage": {name: value.data_ptr() for name, value in backbone.state_dict().items()},
        "requires_grad": {name: p.requires_grad for name, p in backbone.named_parameters()},
        "gradients": {name: p.grad for name, p in backbone.named_parameters()},
        "training": {name: module.training for name, module in backbone.named_modules()},
        "hooks": {
            name: (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks))
            for name, module in backbone.named_modules()
        },
        "attributes": {name: set(vars(module)) for name, module in backbone.named_modules()},
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    for name, value in before["weights"].items():
        assert torch.equal(after["weights"][name], value), name
    for part in ("storage", "requires_grad", "training", "hooks", "attributes", "gradients"):
        assert after[part] == before[part], part


def train_one_step(model: bt.MultiTaskModel, name: str) -> None:
    contract = CONTRACTS[name]
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    weighted_sum(model(contract.images(2), **contract.inputs(2))).backward()
    optimizer.step()


@pytest.mark.parametrize(
    "options",
    [{}, {"extras": ("norms",)}, {"train_backbone": True}],
    ids=["frozen", "extras", "train_backbone"],
)
@pytest.mark.parametrize("name", NAMES)
def test_the_users_backbone_is_unchanged(name: str, options: dict[str, Any]) -> None:
    contract = CONTRACTS[name]
    backbone = contract.build()
    backbone.train()
    next(backbone.parameters()).requires_grad_(False)
    before = state_of(backbone)
    spec = contract.trace(backbone)
    model = grow(name, TREES["1124"], LORA, **options | {"backbone": backbone, "spec": spec})
    weights = {n: p.clone() for n, p in model.named_parameters()}
    train_one_step(model, name)
    assert_unchanged(before, state_of(backbone))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, weights[n])}
    assert moved
    assert moved <= {n for n, p in model.named_parameters() if p.requires_grad}


def test_calling_a_fresh_model_in_training_mode_moves_no_statistics() -> None:
    backbone = CONTRACTS["resnet18"].build()
    backbone.train()
    before = state_of(backbone)
    model = bt.MultiTaskModel(backbone, [bt.Depth("b")], adapter=LORA, image_size=64)
    model(CONTRACTS["resnet18"].images(2))
    assert_unchanged(before, state_of(backbone))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_weights_are_shared_and_extras_are_not(name: str) -> None:
    backbone = traced(name)[0]
    model = grow(name, TREES["1124"], LORA, extras=("norms",))
    theirs = dict(backbone.named_parameters())
    for parameter_name, parameter in model.backbone.frozen.named_parameters():
        shared = parameter.data_ptr() == theirs[parameter_name].data_ptr()
        assert shared != (parameter_name in model.backbone.extra_names), parameter_name
        assert parameter.requires_grad == (parameter_name in model.backbone.extra_names)


def test_without_extras_buffers_are_shared_too() -> None:
    backbone = traced("resnet18")[0]
    model = grow("resnet18", TREES["1124"], LORA)
    theirs = dict(backbone.named_buffers())
    assert theirs
    for name, buffer in model.backbone.frozen.named_buffers():
        assert buffer.data_ptr() == theirs[name].data_ptr()


def test_two_models_on_one_backbone_do_not_disturb_each_other() -> None:
    images = CONTRACTS["swin_tiny"].images(2)
    first = randomise(grow("swin_tiny", TREES["1124"], LORA))
    alone = first(images)
    second = randomise(grow("swin_tiny", TREES["interleaved"], bt.Bottleneck(), extras=("norms",)))
    second_alone = second(images)
    for task, output in first(images).items():
        assert torch.equal(output, alone[task])
    train_one_step(second, "swin_tiny")
    for task, output in first(images).items():
        assert torch.equal(output, alone[task])
        assert not torch.equal(second.eval()(images)[task], second_alone[task])


@pytest.mark.parametrize("name", ["swin_tiny", "masked_net", "hiera_tiny"])
def test_a_deep_copy_is_equal_and_independent(name: str) -> None:
    contract = CONTRACTS[name]
    images, inputs = contract.images(2), contract.inputs(2)
    model = randomise(grow(name, TREES["interleaved"], LORA, extras=("norms",)))
    twin = copy.deepcopy(model)
    before = model(images, **inputs)
    for task, output in twin(images, **inputs).items():
        assert torch.equal(output, before[task])
    train_one_step(twin, name)
    for task, output in model(images, **inputs).items():
        assert torch.equal(output, before[task])
        assert not torch.equal(twin.eval()(images, **inputs)[task], before[task])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_threads_with_different_tasks_get_their_own_answers() -> None:
    model = randomise(grow("swin_tiny", TREES["interleaved"], LORA)).eval()
    images = CONTRACTS["swin_tiny"].images(2)
    wanted = [["a"], ["b", "c"], ["d", "a"], list(TASKS)]
    with torch.no_grad():
        expected = [model(images, tasks=tasks) for tasks in wanted]
    mistakes: list[str] = []
    barrier = threading.Barrier(len(wanted))

    def call(index: int) -> None:
        barrier.wait()
        for _ in range(5):
            with torch.no_grad():
                outputs = model(images, tasks=wanted[index])
            if list(outputs) != wanted[index]:
                mistakes.append(f"{wanted[index]} got {list(outputs)}")
            mistakes.extend(t for t in outputs if not torch.equal(outputs[t], expected[index][t]))

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(wanted))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not mistakes


def test_a_call_inside_a_call_is_safe() -> None:
    outer = randomise(grow("swin_tiny", TREES["1124"], LORA))
    inner = randomise(grow("vit_tiny", TREES["interleaved"], LORA))
    images, inner_images = CONTRACTS["swin_tiny"].images(2), CONTRACTS["vit_tiny"].images(3)
    expected, inner_expected = outer(images), inner(inner_images, tasks=["b"])["b"]
    seen: list[Tensor] = []
    outer.backbone.frozen.get_submodule("layers.2").register_forward_hook(
        lambda module, args, output: seen.append(inner(inner_images, tasks=["b"])["b"])
    )
    nested = outer(images)
    assert torch.equal(seen[0], inner_expected)
    for task in TASKS:
        assert torch.equal(nested[task], expected[task])


def test_an_exception_inside_a_call_leaves_no_state() -> None:
    model = randomise(grow("swin_tiny", TREES["1124"], LORA))
    images = CONTRACTS["swin_tiny"].images(2)
    expected = model(images)

    def fail(module: nn.Module, args: tuple[Any, ...]) -> None:
        raise KeyboardInterrupt

    handle = model.backbone.frozen.get_submodule("layers.2").register_forward_pre_hook(fail)
    with pytest.raises(KeyboardInterrupt):
        model(images)
    handle.remove()
    for task, output in model(images, tasks=["a"]).items():
        assert relative_error(output, expected[task]) < 1e-4
    for task, output in model(images).items():
        assert torch.equal(output, expected[task])


def test_full_fine_tuning_owns_every_weight_the_features_depend_on() -> None:
    model = grow("resnet18", bt.TaskTree.shared(TASKS, 4), None, train_backbone=True)
    counts = model.count_parameters()
    assert counts["backbone"] == sum(p.numel() for p in model.backbone.frozen.parameters())
    assert (counts["adapters"], counts["extras"], counts["frozen"]) == (0, 0, 0)
    trainable = {n for n, p in model.backbone.frozen.named_parameters() if p.requires_grad}
    assert trainable == set(model.spec.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_every_trainable_parameter_has_one_owner(name: str) -> None:
    model = grow(name, TREES["1124"], LORA, extras=("norms",))
    counts = model.count_parameters()
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == counts["adapters"] + counts["extras"] + counts["decoders"]
    assert (
        sum(p.numel() for p in model.backbone.parameters() if p.requires_grad) == counts["adapters"] + counts["extras"]
    )
    assert counts["backbone"] == 0
