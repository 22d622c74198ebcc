"""Backbones of images with other than three channels: grey, colour with depth."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.source import source_of


class Grey(nn.Module):
    """One channel, which it says by the attribute that timm's models have."""

    in_chans = 1

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.stage = nn.Conv2d(1, 8, 3, stride=4, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.stage(self.stem(images))


def model_of(backbone: nn.Module, **arguments: object) -> bt.MultiTaskModel:
    return bt.MultiTaskModel(backbone, [bt.Depth("depth")], adapter=bt.LoRA(r=2), **arguments).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "resnet10t"])
def test_timm_models_take_the_channels_that_they_were_made_for(name: str) -> None:
    backbone = timm.create_model(name, pretrained=False, in_chans=4, num_classes=0)
    model = model_of(backbone, image_size=160)
    images = torch.rand(2, 4, 160, 160)
    with torch.no_grad():
        assert model(images)["depth"].shape == (2, 1, 160, 160)
        torch.testing.assert_close(model.merge()(images), model(images), rtol=1e-3, atol=1e-4)
    with pytest.raises(bt.UserError, match=r"expected \[B, 4, H, W\]"):
        model(images[:, :3])


def test_a_module_of_ones_own_says_how_many() -> None:
    assert model_of(Grey(), levels=["stage"], image_size=32)(torch.rand(1, 1, 32, 32))["depth"].shape == (1, 1, 32, 32)


def test_a_saved_model_names_them(tmp_path: Path) -> None:
    backbone = timm.create_model("test_vit", pretrained=False, in_chans=1, num_classes=0)
    source = source_of(backbone)
    assert source is not None
    assert source.kwargs["in_chans"] == 1
    model_of(backbone).save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "torch.zeros(1, 1, 160, 160)" in card
    assert "standard deviation" not in card  # timm's are of three channels
    report = bt.export_torch(model_of(backbone), tmp_path / "model.pt2")
    assert "images [batch, 1, 160, 160] -> depth" in str(report)
    again = bt.MultiTaskModel.from_pretrained(tmp_path / "model", backbone=backbone)
    assert again(torch.rand(1, 1, 160, 160))["depth"].shape == (1, 1, 160, 160)
