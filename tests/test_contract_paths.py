"""What a task's path is: the extremes of the tree, isolated gradients, pruned prediction."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import branchtune as bt
from contract_backbones import CONTRACTS, TASKS, TREES, grow, randomise, relative_error, traced, weighted_sum

LORA = bt.LoRA(r=2, lora_alpha=3)


class MergedLoRA:
    """The textbook model of one LoRA adapter set: every W becomes W0 + s B A, nothing else changes.

    Attributes:
        weights: A and B by parameter name, leaves of this model's own graph.
    """

    def __init__(self, model: bt.MultiTaskModel, backbone: nn.Module, task: str) -> None:
        self.model, self.task = model, task
        self.backbone = copy.deepcopy(backbone).double().eval()
        self.weights: dict[str, Tensor] = {}
        self.updated: dict[str, Tensor] = {}
        for site in model.backbone.sites.values():
            node = model.backbone.node_adapters(site.level, model.tree.group_of(task, site.level))[site.key]
            down, up = (p.detach().clone().requires_grad_() for p in (node.lora_A, node.lora_B))
            prefix = node_prefix(model, site.level, task) + site.key
            self.weights[f"{prefix}.lora_A"], self.weights[f"{prefix}.lora_B"] = down, up
            frozen = self.backbone.get_submodule(site.name).weight
            change = up.flatten(1) @ down.flatten(1)
            self.updated[f"{site.name}.weight"] = frozen.detach() + 1.5 * change.view_as(frozen)
        self.decoder = copy.deepcopy(model.decoders[task])

    def __call__(self, images: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for level in self.model.spec.levels:
            self.backbone.get_submodule(level.end).register_forward_hook(lambda m, a, out: maps.append(out))
        functional_call(self.backbone, self.updated, images)
        if self.model.spec.levels[0].feature.layout == "NHWC":
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return self.model.tasks[self.task].activate(self.decoder(maps, (images.shape[2], images.shape[3])))


def node_prefix(model: bt.MultiTaskModel, level: int, task: str) -> str:
    group = model.tree.levels[level][model.tree.group_of(task, level)]
    return f"backbone.adapters.{level}/{'+'.join(group)}."


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "separate"])
@pytest.mark.parametrize("name", ["swin_tiny", "resnet18"])
def test_the_extreme_trees_are_plain_lora(name: str, shared: bool) -> None:
    tree = (bt.TaskTree.shared if shared else bt.TaskTree.separate)(TASKS, 4)
    model = randomise(grow(name, tree, LORA)).double()
    images = CONTRACTS[name].images(2, torch.float64)
    outputs = model(images)
    weighted_sum(outputs).backward()
    twins = {task: MergedLoRA(model, traced(name)[0], task) for task in TASKS}
    expected = {task: twin(images) for task, twin in twins.items()}
    weighted_sum(expected).backward()
    own: dict[str, Tensor] = {}
    for task, twin in twins.items():
        assert relative_error(outputs[task], expected[task]) < 1e-10
        for key, weight in twin.weights.items():
            assert weight.grad is not None
            own[key] = own[key] + weight.grad if key in own else weight.grad
    adapters = {n: p for n, p in model.named_parameters() if n.startswith("backbone.adapters")}
    assert set(own) == set(adapters)
    assert len(own) == (1 if shared else 4) * 2 * CONTRACTS[name].sites[0]
    for key, parameter in adapters.items():
        assert parameter.grad is not None
        assert relative_error(parameter.grad, own[key]) < 1e-10


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_extreme_trees_are_single_task_models(name: str) -> None:
    """One set for all: every task alone with that set. One set each: every task alone with its own."""
    contract, (backbone, spec) = CONTRACTS[name], traced(name)
    depth = len(spec.levels)
    images, inputs = contract.images(2, torch.float64), contract.inputs(2)
    for tree in (bt.TaskTree.shared(TASKS, depth), bt.TaskTree.separate(TASKS, depth)):
        model = randomise(grow(name, tree, LORA)).double()
        outputs = model(images, **inputs)
        for task in TASKS:
            alone = bt.MultiTaskModel(
                backbone, [model.tasks[task]], adapter=LORA, decoder=bt.LightDecoder(dim=16, stride=8), spec=spec
            )
            alone = alone.double().eval()
            alone.decoders[task].load_state_dict(model.decoders[task].state_dict())
            for level, index in enumerate(model.tree.path(task)):
                theirs = model.backbone.node_adapters(level, index)
                alone.backbone.node_adapters(level, 0).load_state_dict(theirs.state_dict())
            assert relative_error(alone(images, **inputs)[task], outputs[task]) < 1e-10


ADAPTERS: dict[str, bt.Adapter] = {"lora": LORA, "bottleneck": bt.Bottleneck()}


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("name", CONTRACTS)
def test_a_tasks_loss_gives_no_gradient_off_its_path(name: str, adapter: str) -> None:
    contract = CONTRACTS[name]
    model = randomise(grow(name, TREES["interleaved"], ADAPTERS[adapter], extras=("norms",)))
    for wanted in (["a"], ["b"], ["b", "d"]):
        model.zero_grad(set_to_none=True)
        outputs = model(contract.images(2), **contract.inputs(2))
        weighted_sum({task: outputs[task] for task in wanted}).backward()
        check_gradients(model, wanted)


def check_gradients(model: bt.MultiTaskModel, wanted: list[str]) -> None:
    for node in model.tree.nodes():
        for key, parameter in model.backbone.node_adapters(node.level, node.index).named_parameters():
            if set(node.tasks) & set(wanted):
                assert parameter.grad is not None, (node.key, key)
                assert parameter.grad.abs().max() > 0, (node.key, key)
            else:
                assert parameter.grad is None, (node.key, key)
    for task in model.tasks:
        for parameter in model.decoders[task].parameters():
            assert (parameter.grad is not None) == (task in wanted)
    extras = [p for p in model.backbone.frozen.parameters() if p.requires_grad]
    assert extras
    assert all(parameter.grad is not None for parameter in extras)


def test_gradients_by_torch_autograd_grad_and_after_retaining_the_graph_are_isolated_too() -> None:
    model = randomise(grow("swin_tiny", TREES["1124"], LORA))
    outputs = model(CONTRACTS["swin_tiny"].images(2))
    parameters = list(model.backbone.adapters.parameters())
    found = {
        task: torch.autograd.grad(outputs[task].sum(), parameters, retain_graph=True, allow_unused=True)
        for task in TASKS
    }
    for task in TASKS:
        mine = {
            id(p)
            for level, index in enumerate(model.tree.path(task))
            for p in model.backbone.node_adapters(level, index).parameters()
        }
        for parameter, gradient in zip(parameters, found[task], strict=True):
            assert (gradient is not None) == (id(parameter) in mine)
    total = torch.autograd.grad(sum(o.sum() for o in outputs.values()), parameters)
    for index, gradient in enumerate(total):
        parts = [found[task][index] for task in TASKS if found[task][index] is not None]
        assert relative_error(sum(parts[1:], parts[0]), gradient) < 1e-4


def test_an_optimiser_moves_no_node_off_the_path() -> None:
    model = randomise(grow("swin_tiny", TREES["1124"], LORA)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    images = CONTRACTS["swin_tiny"].images(2)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model(images)["a"].sum().backward()
    optimizer.step()
    for name, parameter in model.backbone.adapters.named_parameters():
        on_path = "a" in name.split(".")[0].split("/")[1].split("+")
        assert torch.equal(parameter, before[f"backbone.adapters.{name}"]) != on_path, name


@pytest.mark.parametrize("name", CONTRACTS)
def test_predicting_a_subset_is_predicting_all(name: str) -> None:
    contract = CONTRACTS[name]
    model = randomise(grow(name, TREES["interleaved"], LORA)).double()
    images, inputs = contract.images(2, torch.float64), contract.inputs(2)
    with torch.no_grad():
        everything = model(images, **inputs)
        for wanted in (["b"], ["d", "a"], ["c", "b"]):
            subset = model(images, tasks=wanted, **inputs)
            assert list(subset) == wanted
            for task, output in subset.items():
                assert relative_error(output, everything[task]) < 1e-10


def test_training_one_task_alone_reaches_exactly_its_path() -> None:
    model = randomise(grow("vit_tiny", TREES["interleaved"], LORA))
    model(CONTRACTS["vit_tiny"].images(2), tasks=["d"])["d"].sum().backward()
    for node in model.tree.nodes():
        own = model.backbone.node_adapters(node.level, node.index).parameters()
        assert all((parameter.grad is not None) == ("d" in node.tasks) for parameter in own)
