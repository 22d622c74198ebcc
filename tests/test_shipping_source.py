"""Backbones by name: where their weights come from, and how to get the same one again."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from branchtune.atomic import write_json
from branchtune.backbone import source as module
from branchtune.backbone.source import BackboneSource, create_backbone, report_of, source_of
from branchtune.errors import UserError
from branchtune.weight_loading import file_sha256
from shipping_models import SIZES, SWIN, weights_file

VIT = {"img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 2}


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_random_weights() -> None:
    backbone = create_backbone("vit_tiny_patch16_224", pretrained=False, **VIT)
    assert backbone.num_classes == 0
    source = source_of(backbone)
    assert source == BackboneSource("vit_tiny_patch16_224", VIT, pretrained=False, tag="augreg_in21k_ft_in1k")
    assert not source.has_weights
    assert report_of(backbone) is None
    assert create_backbone("vit_tiny_patch16_224", pretrained=False, num_classes=3, **VIT).num_classes == 3


def test_a_local_checkpoint(tmp_path: Path) -> None:
    file = weights_file(tmp_path)
    backbone = create_backbone(SWIN, checkpoint=file, **SIZES)
    source, report = source_of(backbone), report_of(backbone)
    assert source is not None
    assert report is not None
    assert source.checkpoint_file == "weights0.safetensors"
    assert source.checkpoint_sha256 == file_sha256(file)
    assert not source.pretrained
    assert source.has_weights
    assert len(report.loaded) == len(backbone.state_dict())
    stored = BackboneSource(**json.loads(json.dumps(source.to_json())))
    again = stored.create(checkpoint=file)
    assert same_weights(again, backbone)
    assert str(stored) == str(source_of(again))


def test_the_notes_survive_a_copy(tmp_path: Path) -> None:
    backbone = create_backbone(SWIN, checkpoint=weights_file(tmp_path), **SIZES)
    assert source_of(copy.deepcopy(backbone)) == source_of(backbone)
    assert report_of(copy.deepcopy(backbone)) == report_of(backbone)


def test_a_local_folder_of_timm(tmp_path: Path) -> None:
    plain = create_backbone("vit_tiny_patch16_224", pretrained=False, **VIT)
    config = {"architecture": "vit_tiny_patch16_224", "model_args": VIT, "pretrained_cfg": {"tag": "mine"}}
    write_json(tmp_path / "config.json", config)
    save_file(plain.state_dict(), tmp_path / "model.safetensors")
    backbone = create_backbone(f"local-dir:{tmp_path}")
    assert same_weights(backbone, plain)
    source = source_of(backbone)
    assert source == BackboneSource(f"local-dir:{tmp_path}")
    assert same_weights(source.create(), plain)


def test_a_tag_brings_its_image_statistics_even_with_a_local_checkpoint(tmp_path: Path) -> None:
    tag = "vit_tiny_patch16_224.augreg_in21k"
    file = tmp_path / "vit.safetensors"
    save_file(create_backbone(tag, pretrained=False, **VIT).state_dict(), file)
    source = source_of(create_backbone(tag, checkpoint=file, **VIT))
    assert source is not None
    assert (source.name, source.tag) == ("vit_tiny_patch16_224", "augreg_in21k")
    assert source.create(checkpoint=file).pretrained_cfg["tag"] == "augreg_in21k"


def test_what_a_plain_timm_model_tells() -> None:
    plain = timm.create_model("vit_tiny_patch16_224.augreg_in21k", img_size=(32, 48), dynamic_img_size=True)
    source = source_of(plain)
    assert source == BackboneSource(
        "vit_tiny_patch16_224", {"img_size": [32, 48], "dynamic_img_size": True}, tag="augreg_in21k"
    )
    again = source.create(pretrained=False)
    assert again.patch_embed.img_size == (32, 48)
    assert again.dynamic_img_size
    assert source_of(timm.create_model("resnet18")) == BackboneSource("resnet18", tag="a1_in1k")
    dilated = source_of(timm.create_model("resnet18", num_classes=5, output_stride=8))
    assert dilated == BackboneSource("resnet18", {"output_stride": 8}, tag="a1_in1k")
    assert dilated.create(pretrained=False).layer4[0].conv1.stride == (1, 1)
    assert source_of(nn.Linear(2, 2)) is None


def test_a_timm_model_of_the_hub_comes_from_there() -> None:
    plain = timm.create_model("resnet18")
    plain.pretrained_cfg = {**plain.pretrained_cfg, "source": "hf-hub", "hf_hub_id": "user/name"}
    assert source_of(plain) == BackboneSource("hf-hub:user/name")


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("swin_tinny_patch4_window7_224", {}, r"unknown backbone .*did you mean 'swin_tiny_patch4_window7_224'\?"),
        ("scenes_swim", {}, r"unknown backbone .*did you mean 'scenes_swin'\?"),
        ("resnet18.a1_in1l", {}, r"unknown weights \(tag\) of resnet18 'a1_in1l': did you mean 'a1_in1k'\?"),
        (
            "coatnet_0_224",
            {},
            r"timm has no weights for coatnet_0_224: pass a file as checkpoint=, or pretrained=False",
        ),
        ("resnet18", {"pretrained": False, "img_size": 3}, r"timm cannot create resnet18 with img_size=3 \(.*img_size"),
        (
            "vit_tiny_patch16_224",
            {"pretrained": False, "img_size": -3},
            r"img_size=-3 \(Expected a positive image size",
        ),
        ("resnet18", {"checkpoint": "none.safetensors"}, r"none.safetensors: no such checkpoint file"),
    ],
)
def test_wrong_names_and_arguments(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        create_backbone(name, **kwargs)
    assert "\n" not in str(error.value)


def test_a_machine_without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise ConnectionError("[Errno -2] Name or service\nnot known")
        return create(*args, **kwargs)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    message = (
        r"the weights of resnet18 could not be downloaded \(\[Errno -2\] Name or service not known\): pass a "
        r"local file as checkpoint=, or pretrained=False"
    )
    with pytest.raises(UserError, match=message):
        create_backbone("resnet18")
    with pytest.raises(UserError, match=r"timm cannot create resnet18 with depth=3"):
        create_backbone("resnet18", depth=3)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the weights in the package, in half precision as they are."""
    card = {"backbone": SWIN, "backbone_args": SIZES, "image_size": [32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}
    write_json(tmp_path / "weights" / "scenes_swin.json", card)
    weights = timm.create_model(SWIN, num_classes=0, **SIZES).state_dict()
    file = tmp_path / "weights" / "scenes_swin.safetensors"
    save_file({name: tensor.half() for name, tensor in weights.items()}, file)
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)


@pytest.mark.usefixtures("packaged")
def test_the_packaged_backbone() -> None:
    one, other = create_backbone("scenes_swin"), create_backbone("scenes_swin")
    assert same_weights(one, other)
    assert not same_weights(one, create_backbone("scenes_swin", pretrained=False))
    assert next(one.parameters()).dtype == torch.float32
    assert source_of(one) == BackboneSource("scenes_swin")
    assert one.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
    assert one.pretrained_cfg["std"] == (0.25, 0.25, 0.25)
    assert one.pretrained_cfg["architecture"] == "scenes_swin"
    report = report_of(one)
    assert report is not None
    assert not report.missing
    larger = create_backbone("scenes_swin", img_size=64)
    assert larger.patch_embed.img_size == (64, 64)
    assert source_of(larger) == BackboneSource("scenes_swin", {"img_size": 64})


def test_the_weights_that_ship_with_branchtune() -> None:
    if not (Path(module.__file__).parents[1] / "weights" / "scenes_swin.safetensors").is_file():
        pytest.skip("not trained yet")
    backbone = create_backbone("scenes_swin")
    report = report_of(backbone)
    assert report is not None
    assert len(report.loaded) == len(backbone.state_dict())
    assert backbone(torch.zeros(1, 3, *backbone.pretrained_cfg["input_size"][1:])).isfinite().all()


def test_a_package_without_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"scenes_swin.json is missing from this installation of branchtune"):
        create_backbone("scenes_swin")
