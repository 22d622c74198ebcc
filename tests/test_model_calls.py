"""What a model may be built from and called with: precisions, modes, images, decoders, modules with hooks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.decoder_fit import fit_decoders
from branchtune.route import Route
from small_backbones import TREE, Tokens, grow
from small_model import small_model


def images(count: int = 2, size: int = 32) -> Tensor:
    return torch.rand(count, 3, size, size)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_adapters_and_decoders_follow_the_precision_of_the_backbone(dtype: torch.dtype) -> None:
    model = grow(Tokens().to(dtype), target_modules=["one", "two"])
    assert {p.dtype for p in model.parameters()} == {dtype}
    outputs = model.train()(images().to(dtype))
    torch.stack([output.float().mean() for output in outputs.values()]).sum().backward()
    assert all(p.grad is not None for p in model.backbone.adapters.parameters())


@pytest.mark.parametrize("made_inside", [True, False], ids=["backbone made inside", "backbone made before"])
def test_a_model_built_in_inference_mode_trains(made_inside: bool) -> None:
    before = Tokens()
    with torch.inference_mode():
        backbone = Tokens() if made_inside else before
        model = grow(backbone, target_modules=["one", "two"])
        expected = model(images())
    assert set(expected) == {"b", "c"}
    outputs = model.train()(images())
    torch.stack([output.mean() for output in outputs.values()]).sum().backward()
    assert all(p.grad is not None for p in model.backbone.adapters.parameters())
    if not made_inside:
        assert model.backbone.frozen.one.weight.data_ptr() == backbone.one.weight.data_ptr()  # type: ignore[union-attr]


def trains(model: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "options", [{}, {"extras": ("norms",)}, {"train_backbone": True, "adapter": None, "tree": None}], ids=str
)
def test_requires_grad_keeps_frozen_what_the_plan_freezes(options: dict[str, Any]) -> None:
    model = small_model(**options)
    planned = trains(model)
    assert model.requires_grad_(True) is model
    assert trains(model) == planned
    assert not any(trains(model.requires_grad_(False)).values())
    model.backbone.requires_grad_()
    model.decoders.requires_grad_()
    assert trains(model) == planned


def test_sgd_after_requires_grad_leaves_the_users_backbone_alone() -> None:
    backbone = Tokens()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    model = grow(backbone, target_modules=["one", "two"]).train().requires_grad_(True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(images())["b"].mean().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_frozen_weight_that_was_made_to_train_is_refused_by_name() -> None:
    model = grow(Tokens(), target_modules=["one", "two"])
    model.backbone.frozen.requires_grad_(True)
    with pytest.raises(bt.UserError, match=r"'patches.weight' of the backbone is frozen by the plan"):
        bt.WeightedSum().build(model)


MODEL = small_model().float().eval()
BAD_IMAGES: dict[str, tuple[Any, str]] = {
    "list": ([[0.0]], "images are of type list: pass a torch tensor"),
    "numpy": (np.zeros((1, 3, 32, 32), np.float32), "images are of type ndarray"),
    "one": (torch.rand(3, 32, 32), r"images have shape \(3, 32, 32\): expected \[B, 3, H, W\]"),
    "none": (images(0), r"images have shape \(0, 3, 32, 32\): .* at least 1"),
    "grey": (images()[:, :1], r"images have shape \(2, 1, 32, 32\): expected \[B, 3, H, W\]"),
    "channels last": (images().permute(0, 2, 3, 1), r"channels first: images.permute\(0, 3, 1, 2\)"),
    "bytes": ((images() * 255).byte(), "images are uint8: pass floats"),
    "double": (images().double(), r"images are float64, the model is float32: use images.to\(torch.float32\)"),
    "size": (images(size=40), r"swin_tiny_patch4_window7_224 cannot take images of 40x40: .*choose another image_size"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_images_that_the_model_cannot_take(case: str) -> None:
    bad, message = BAD_IMAGES[case]
    for call in (MODEL, MODEL.backbone):
        with pytest.raises(bt.UserError, match=message) as error:
            call(bad)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("tasks", [5, [["a"]], [None]])
def test_tasks_that_are_no_names(tasks: Any) -> None:
    with pytest.raises(bt.UserError, match="tasks="):
        MODEL(images(), tasks=tasks)


class InPlace(bt.Decoder):
    """A head whose first operation may write into what it is given."""

    def __init__(self, inplace: bool) -> None:
        self.inplace = inplace

    def build(self, channels: Sequence[int], out_channels: int) -> nn.Module:
        return _Head(channels[-1], out_channels, self.inplace)


class _Head(nn.Module):
    def __init__(self, channels: int, out_channels: int, inplace: bool) -> None:
        super().__init__()
        self.act, self.out = nn.ReLU(inplace=inplace), nn.Conv2d(channels, out_channels, 1)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        return nn.functional.interpolate(self.out(self.act(maps[-1])), size)


def with_head(inplace: bool) -> bt.MultiTaskModel:
    tasks = [bt.Depth("b"), bt.Depth("c")]
    return bt.MultiTaskModel(
        Tokens(),
        tasks,
        None,
        bt.LoRA(2, target_modules=["one"]),
        InPlace(inplace),
        levels=["one", "two"],
        image_size=32,
    )


@pytest.mark.parametrize("training", [True, False])
def test_a_decoder_that_writes_into_a_shared_map_is_refused(training: bool) -> None:
    with_head(inplace=False)(images())
    model = with_head(inplace=True).train(training)
    with (
        torch.set_grad_enabled(training),
        pytest.raises(bt.UserError, match="decoder of task 'b' changes a feature map"),
    ):
        model(images())
    batch = {"image": images(), "b": torch.ones(2, 32, 32)}
    with pytest.raises(bt.UserError, match="decoder of task 'b' changes a feature map"):
        fit_decoders(model, [batch], 1, 1e-3)


@pytest.mark.parametrize("part", [False, True], ids=["whole", "a module"])
def test_a_compiled_backbone_is_refused(part: bool) -> None:
    backbone: Any = Tokens()
    if part:
        backbone.one = torch.compile(backbone.one)
    else:
        backbone = torch.compile(backbone)
    with pytest.raises(bt.UserError, match=r"compiled by torch.compile.*pass the uncompiled module"):
        grow(backbone, target_modules=["one", "two"])


def test_the_backbone_of_another_model_is_a_plain_one() -> None:
    backbone = Tokens()
    first = grow(backbone, target_modules=["one", "two"])
    heard: list[Any] = []
    first.backbone.frozen.one.register_forward_hook(lambda *call: heard.append(call))  # type: ignore[union-attr]
    torch.manual_seed(1)
    second = grow(first.backbone.frozen, target_modules=["one", "two"])
    assert second.backbone.frozen.one.weight.data_ptr() == backbone.one.weight.data_ptr()  # type: ignore[union-attr]
    heard.clear()
    torch.manual_seed(1)
    expected = grow(backbone, target_modules=["one", "two"])
    x = images()
    for name, output in second(x).items():
        assert torch.equal(output, expected(x)[name])
    assert heard, "the user's own hooks are kept"
    assert bt.trace_backbone(first.backbone.frozen, ["one", "two"], 32) == first.spec
    assert set(first(x)) == {"b", "c"}


def test_routes_are_remembered_for_the_tasks_and_their_order() -> None:
    assert Route.of(TREE, ["b", "c"]) is Route.of(bt.TaskTree(TREE.levels), ("b", "c"))
    assert list(Route.of(TREE, ["c", "b"]).slot) == ["c", "b"]
    assert Route.of(TREE, ["c"]) is not Route.of(TREE, ["b"])
