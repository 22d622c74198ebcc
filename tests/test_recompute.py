"""Levels whose blocks run again in the backward pass: the same gradients from fewer kept activations."""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

import branchtune as bt
from branchtune.adapters.comb import Comb
from branchtune.training.task_gradients import task_gradients
from contract_backbones import CONTRACTS, TASKS, TREES, grow, randomise, weighted_sum
from kept_inputs import keeping_all
from small_backbones import TREE, Tokens
from small_backbones import grow as grow_tokens
from small_model import small_model

LORA = bt.LoRA(r=2, lora_alpha=3, lora_dropout=0.3)
FAST = ("vit_tiny", "hiera_tiny", "masked_net")


def gradients(model: bt.MultiTaskModel, images: Tensor, inputs: Mapping[str, Any], **options: Any) -> dict[str, Tensor]:
    """Of one training step; dropout draws the same numbers each time."""
    model.train().zero_grad(set_to_none=True)
    torch.manual_seed(11)
    weighted_sum(model(images, **options, **inputs)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(found) == set(expected)
    assert expected
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= 1e-10 * gradient.abs().max(), name


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in CONTRACTS])
def test_gradients_equal_those_without_it(name: str) -> None:
    contract = CONTRACTS[name]
    images, inputs = contract.images(2, torch.float64), contract.inputs(2)
    plain, again = (
        randomise(grow(name, TREES["interleaved"], LORA, extras=("norms",), checkpoint_levels=levels)).double()
        for levels in (False, True)
    )
    assert again.backbone.checkpoint_levels == (0, 1, 2, 3)
    assert_equal(gradients(again, images, inputs), gradients(plain, images, inputs))
    assert_equal(gradients(again, images, inputs, tasks=["d", "b"]), gradients(plain, images, inputs, tasks=["d", "b"]))


@pytest.mark.parametrize(
    "options",
    [
        {"adapter": bt.Bottleneck(), "checkpoint_levels": [1, 3]},
        {"adapter": Comb(r=2, lora_dropout=0.3), "tree": None, "checkpoint_levels": True},
        {"adapter": None, "tree": None, "train_backbone": True, "checkpoint_levels": True},
    ],
    ids=["bottleneck", "comb", "full"],
)
def test_gradients_of_other_families_and_of_full_fine_tuning(options: dict[str, Any]) -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    again, plain = (small_model(**options | levels) for levels in ({}, {"checkpoint_levels": False}))
    assert_equal(gradients(again, images, {}), gradients(plain, images, {}))


def kept_bytes(model: bt.MultiTaskModel, images: Tensor) -> int:
    """Of the backbone's activations that wait for the backward pass, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}
    alive = []

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        alive.append(tensor)
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        features = model.train().backbone(images)
    assert features
    return sum(size for pointer, size in kept.items() if pointer not in weights)


@pytest.mark.parametrize(("name", "share"), [("vit_tiny", 0.1), ("swin_tiny", 0.1)])
def test_a_small_share_of_the_activations_is_kept(name: str, share: float) -> None:
    images = CONTRACTS[name].images(4)
    again, half = (
        kept_bytes(grow(name, TREES["1124"], LORA, checkpoint_levels=levels), images) for levels in (True, [3])
    )
    with keeping_all():
        plain = kept_bytes(grow(name, TREES["1124"], LORA), images)
    assert again < share * plain
    assert again < half < plain


def test_a_block_runs_again_in_training_alone() -> None:
    model = small_model(checkpoint_levels=[2]).train()
    calls: list[str] = []
    for level in (1, 2):
        model.backbone.frozen.layers[level].blocks[0].mlp.register_forward_pre_hook(  # type: ignore[index,union-attr]
            lambda *_, level=level: calls.append(f"level {level}")
        )
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    weighted_sum(model(images)).backward()
    assert sorted(calls) == ["level 1", "level 2", "level 2"]
    calls.clear()
    with torch.no_grad():
        model(images)
    weighted_sum(model.eval()(images)).backward()
    assert sorted(calls) == ["level 1", "level 1", "level 2", "level 2"]


def test_gradients_of_each_task_from_one_graph_and_in_another_thread() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    found: list[dict[str, list[Tensor | None]]] = []

    def step(levels: bool) -> None:
        model = small_model(checkpoint_levels=levels).train()
        losses = {name: output.square().mean() for name, output in model(images).items()}
        parameters = [p for p in model.parameters() if p.requires_grad]
        thread = threading.Thread(target=lambda: found.append(task_gradients(losses, parameters)))
        thread.start()
        thread.join()

    step(False)
    step(True)
    plain, again = found
    for task, expected in plain.items():
        for one, two in zip(again[task], expected, strict=True):
            assert (one is None) == (two is None)
            if one is not None and two is not None:
                torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-14)


def test_calls_between_forward_and_backward_do_not_disturb_it() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model = small_model(checkpoint_levels=True).train()
    expected = gradients(model, images, {})
    model.zero_grad(set_to_none=True)
    torch.manual_seed(11)
    outputs = model(images)
    model(images[:1], tasks=["c"])
    weighted_sum(outputs).backward()
    assert_equal({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, expected)


def test_copies_recompute_themselves_and_models_grown_on_it_do_not() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    model = small_model(checkpoint_levels=True)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.backbone.adapters.parameters():
            parameter.zero_()
    assert_equal(gradients(twin, images, {}), gradients(small_model(), images, {}))
    other = bt.MultiTaskModel(model.backbone.frozen, list(model.tasks.values()), spec=model.spec)
    for m in (other, model.merge("all")):
        assert not [name for name, module in m.backbone.frozen.named_modules() if "forward" in vars(module)]


def test_a_forward_of_the_users_own_is_kept() -> None:
    model = small_model()
    block: Any = model.backbone.frozen.layers[1].blocks[0]  # type: ignore[index,union-attr]
    block.forward = lambda x: 2 * type(block).forward(block, x)
    grown = bt.MultiTaskModel(
        model.backbone.frozen, list(model.tasks.values()), spec=model.spec, checkpoint_levels=True
    )
    again = bt.MultiTaskModel(grown.backbone.frozen, list(model.tasks.values()), spec=model.spec)
    images = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        first, second = (m.eval().backbone(images)["a"][-1] for m in (grown, again))
    assert torch.equal(first, second)
    assert not torch.equal(first, small_model(tree=None).eval().backbone(images)["a"][-1])


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([4], "checkpoint_levels names level 4, the backbone has levels 0 to 3"),
        ("all", "checkpoint_levels='all': use true, false or a list of level numbers"),
        ([1.5], "a level of checkpoint_levels must be a whole number, got 1.5"),
    ],
    ids=str,
)
def test_levels_that_do_not_exist(levels: Any, message: str) -> None:
    with pytest.raises(bt.UserError, match=message):
        small_model(checkpoint_levels=levels)


def test_levels_that_cannot_be_checkpointed() -> None:
    with pytest.raises(bt.UserError, match="level 0 of Tokens has no block that could run again"):
        grow_tokens(Tokens(), target_modules=["one", "two"], checkpoint_levels=True)
    with pytest.raises(bt.UserError, match=r"layer1.0 of resnet18 holds BatchNorm2d, whose running statistics would"):
        grow("resnet18", bt.TaskTree.shared(TASKS, 4), None, train_backbone=True, checkpoint_levels=True)


def test_blocks_called_by_keyword_alone_keep_their_dropout() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.drop = nn.Linear(8, 8), nn.Dropout(0.5)

        def forward(self, hidden: Tensor, scale: float) -> tuple[Tensor]:
            return (scale * self.drop(self.layer(hidden)),)

    class Keywords(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Block(), Block()

        def forward(self, images: Tensor) -> Tensor:
            return self.two(hidden=self.one(hidden=self.tokens(images), scale=2.0)[0], scale=0.5)[0]

    backbone = Keywords()
    plain = grow_tokens(backbone, target_modules=["layer"])
    again = bt.MultiTaskModel(
        backbone,
        list(plain.tasks.values()),
        TREE,
        plain.adapter,
        plain.decoder,
        spec=plain.spec,
        checkpoint_levels=True,
    )
    again.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert_equal(gradients(again.double(), images, {}), gradients(plain.double(), images, {}))
