"""The fingerprint tells weights apart, and nothing else."""

from __future__ import annotations

import copy
from collections import OrderedDict

import pytest
import timm
import torch
from torch import nn

from branchtune.backbone.fingerprint import sketch_difference, weights_fingerprint, weights_sketch


@pytest.fixture
def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(a=nn.Conv2d(3, 4, 3), b=nn.BatchNorm2d(4), c=nn.Linear(4, 2)))


NAMES = ("a.weight", "a.bias", "b.weight", "b.bias")


def test_the_same_weights_have_the_same_fingerprint(backbone: nn.Module) -> None:
    expected = weights_fingerprint(backbone, NAMES)
    other = nn.Sequential(OrderedDict(c=backbone.c, b=backbone.b, a=backbone.a))
    assert weights_fingerprint(other, set(NAMES)) == expected
    strided = copy.deepcopy(backbone).to(memory_format=torch.channels_last)
    assert weights_fingerprint(strided, NAMES) == expected
    strided.train().requires_grad_(False)
    assert weights_fingerprint(strided, NAMES) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a second device")
def test_it_does_not_depend_on_the_device(backbone: nn.Module) -> None:
    expected = weights_fingerprint(backbone, NAMES)
    assert weights_fingerprint(backbone.cuda(), NAMES) == expected


def test_what_no_feature_depends_on_does_not_count(backbone: nn.Module) -> None:
    expected, sketch = weights_fingerprint(backbone, NAMES), weights_sketch(backbone, NAMES)
    with torch.no_grad():
        backbone.c.weight += 1
        backbone.b.num_batches_tracked += 5
    assert weights_fingerprint(backbone, NAMES) == expected
    assert sketch_difference(sketch, backbone, NAMES) is None


def test_a_classifier_does_not_count() -> None:
    torch.manual_seed(0)
    model = timm.create_model("levit_128s", pretrained=False)
    names = [name for name, _ in model.named_parameters() if not name.startswith("head")]
    headless = timm.create_model("levit_128s", pretrained=False, num_classes=0)
    headless.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head")})
    assert weights_fingerprint(model, names) == weights_fingerprint(headless, names)
    assert sketch_difference(weights_sketch(model, names), headless, names) is None


@pytest.mark.parametrize("name", ["a.weight", "b.bias", "b.running_mean"])
def test_every_value_counts(backbone: nn.Module, name: str) -> None:
    expected, sketch = weights_fingerprint(backbone, NAMES), weights_sketch(backbone, NAMES)
    with torch.no_grad():
        backbone.state_dict()[name].flatten()[2] += 1e-2
    assert weights_fingerprint(backbone, NAMES) != expected
    assert sketch_difference(sketch, backbone, NAMES) == f"{name} has other values"


def test_dtype_counts_in_the_fingerprint(backbone: nn.Module) -> None:
    assert weights_fingerprint(copy.deepcopy(backbone).double(), NAMES) != weights_fingerprint(backbone, NAMES)


def test_two_weights_swapped_count(backbone: nn.Module) -> None:
    sketch = weights_sketch(backbone, NAMES)
    with torch.no_grad():
        backbone.a.weight.copy_(backbone.a.weight.flip(0))
    assert sketch_difference(sketch, backbone, NAMES) == "a.weight has other values"


def test_rounding_does_not_count_in_the_sketch(backbone: nn.Module) -> None:
    sketch = weights_sketch(backbone, NAMES)
    with torch.no_grad():
        backbone.a.weight *= 1 + 2e-7 * torch.randn_like(backbone.a.weight)
    assert sketch_difference(sketch, backbone, NAMES) is None


def test_the_shape_of_what_the_model_computes_itself_counts() -> None:
    def swinv2(window: int) -> nn.Module:
        torch.manual_seed(0)
        sizes = {"img_size": 64, "embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)}
        return timm.create_model("swinv2_tiny_window8_256", pretrained=False, window_size=window, **sizes)

    one, other = swinv2(4), swinv2(8)
    names = [name for name, _ in one.named_parameters()]
    other.load_state_dict(one.state_dict())
    assert weights_fingerprint(one, names) != weights_fingerprint(other, names)
    assert "has shape" in str(sketch_difference(weights_sketch(one, names), other, names))


def test_missing_tensors_are_named(backbone: nn.Module) -> None:
    sketch = weights_sketch(backbone, NAMES)
    assert sketch_difference(sketch, nn.Sequential(OrderedDict(b=backbone.b)), NAMES) == "it has no a.bias"
    assert sketch_difference({}, backbone, NAMES) == "it should have no a.bias"
