"""Backbones that cannot be folded are refused with the reason; layers that cannot carry an adapter are dead."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune import UserError
from contract_backbones import CONTRACTS, MaskedNet
from small_backbones import Tokens, grow


def refused(backbone: nn.Module, levels: Any = ("one", "two"), **options: Any) -> str:
    with pytest.raises(UserError) as error:
        bt.trace_backbone(backbone, list(levels), 32, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_module_that_subtracts_the_batch_mean_is_refused() -> None:
    class Centred(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            x = self.one(self.tokens(images))
            return self.two(x - x.mean(dim=0))

    assert "mixes the images of a batch before 'two'" in refused(Centred())


def test_a_module_that_mixes_the_batch_in_place_before_its_first_layer_is_refused() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return torch.as_tensor(self.second(self.first(x.sub_(x.mean(0)))))

    backbone = Tokens()
    backbone.one = Inside()  # type: ignore[assignment]
    assert "mixes the images of a batch before 'one.first'" in refused(backbone)


def test_a_module_that_mixes_the_batch_in_its_very_last_step_is_refused() -> None:
    class Last(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y - y.mean(dim=0)

    backbone = Tokens()
    backbone.two = Last(8, 8)
    assert "mixes the images of a batch in 'two'" in refused(backbone)


def test_a_module_that_keeps_the_sequence_first_is_refused() -> None:
    class SequenceFirst(Tokens):
        def tokens(self, images: Tensor) -> Tensor:
            return super().tokens(images).transpose(0, 1)

    assert "'one'" in refused(SequenceFirst())
    assert "does not" in refused(SequenceFirst())


def test_layers_that_see_the_sequence_first_inside_a_level_are_dead() -> None:
    class Inside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.transpose(0, 1)).transpose(0, 1)

    backbone = Tokens()
    backbone.one = Inside()
    spec = bt.trace_backbone(backbone, ["one", "two"], 32)
    assert "batch" in spec.dead["one.layer"]
    assert "two" in {site.name for site in spec.sites}


def test_a_backbone_without_any_site_is_refused() -> None:
    class Functional(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            x = self.middle(self.tokens(images))
            return self.end(F.linear(x, self.one.weight))

        def __init__(self) -> None:
            super().__init__()
            self.middle, self.end = nn.Identity(), nn.Identity()

    assert "no layer that can carry an adapter" in refused(Functional(), ("middle", "end"))


def test_a_layer_whose_result_is_not_used_is_dead() -> None:
    class Unused(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Tensor:
            x = self.one(self.tokens(images))
            self.idle(x)
            return self.two(x)

    spec = bt.trace_backbone(Unused(), ["one", "two"], 32)
    assert spec.dead["idle"] == "the features do not depend on it"


def test_layers_read_from_a_list_that_is_never_called_are_dead() -> None:
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Linear(8, 8)])
            self.own = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.own(F.linear(x, self.parts[0].weight))

    backbone = Tokens()
    backbone.one = Listed()
    assert "never called" in bt.trace_backbone(backbone, ["one", "two"], 32).dead["one.parts.0"]


def test_a_layer_that_two_levels_share_is_dead() -> None:
    class Tied(Tokens):
        def __init__(self) -> None:
            super().__init__()
            self.tied, self.end = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, images: Tensor) -> Tensor:
            return self.end(self.tied(self.two(self.tied(self.one(self.tokens(images))))))

    assert bt.trace_backbone(Tied(), ["one", "two:end"], 32).dead["tied"] == "runs in more than one level"


def test_levels_at_a_module_that_is_called_twice_are_refused() -> None:
    class Twice(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            return self.two(self.one(self.one(self.tokens(images))))

    assert "'one' is called 2 times" in refused(Twice())


def test_levels_inside_windows_are_refused() -> None:
    class Windows(nn.Linear):
        pass

    class Windowed(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            x = self.tokens(images)
            windows = self.one(x.reshape(-1, 4, x.shape[-1]))
            return self.two(windows.view_as(x))

    assert "does not have the batch as its first dimension" in refused(Windowed())


def test_a_backbone_that_reshapes_with_an_old_batch_size_is_refused_when_it_loses_the_branches() -> None:
    class Stale(Tokens):
        def forward(self, images: Tensor) -> Tensor:
            x = self.tokens(images)
            batch = len(x)
            x = self.hold(self.one(x))
            return self.two(self.end(x).reshape(batch, -1, 8))

        def __init__(self) -> None:
            super().__init__()
            self.hold, self.end = nn.Identity(), nn.Linear(8, 8)

    model = grow(Stale(), ("one", "hold:two"), target_modules=["one", "two"])
    with pytest.raises(UserError, match="lost the branches before the end of level 1"):
        model(torch.zeros(2, 3, 32, 32))


def test_example_inputs_for_more_than_one_image_are_refused() -> None:
    mask = CONTRACTS["masked_net"].inputs(2)["mask"]
    levels = CONTRACTS["masked_net"].levels
    with pytest.raises(UserError, match=r"example input 'mask' has shape \(2, 16\): give it for one image"):
        bt.trace_backbone(MaskedNet(16), levels, 64, {"mask": mask})
