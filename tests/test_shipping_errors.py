"""What is wrong with a folder, a file or a backbone is said in one line that names it and the way out."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import branchtune as bt
from branchtune.backbone.source import create_backbone
from branchtune.errors import UserError
from shipping_models import SIZES, SWIN, model_on, swin, weights_file


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return swin(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, backbone: nn.Module) -> Path:
    path = tmp_path_factory.mktemp("saved") / "out"
    model_on(backbone).save_pretrained(path)
    return path


@pytest.fixture
def out(tmp_path: Path, saved: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "out"))


def refused(match: str, path: Path | str, **arguments: Any) -> str:
    with pytest.raises(UserError, match=match) as error:
        bt.MultiTaskModel.from_pretrained(path, **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_the_folder(out: Path, tmp_path: Path, backbone: nn.Module) -> None:
    refused(r"none: no such folder, pass the one that save_pretrained wrote", tmp_path / "none")
    refused(r"adapter_config.json is a file: pass the folder", out / "adapter_config.json")
    (tmp_path / "run").mkdir()
    refused(r"run holds no adapter_config.json: pass the folder that save_pretrained wrote", tmp_path / "run")
    shutil.copytree(out, tmp_path / "run" / "model")
    refused(r"run holds no adapter_config.json: pass .*run/model", tmp_path / "run")
    for name in ("adapter_model.safetensors", "decoders.safetensors"):
        (out / name).rename(out / "away")
        refused(rf"{name} is missing: copy the whole folder", out, backbone=backbone)
        (out / "away").rename(out / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(format=3),
            r"format 3 is newer than this version of branchtune reads \(2\): update",
        ),
        (lambda c: c.update(format=2), r"damaged \(no 'train_tasks'\)"),
        (lambda c: c.update(format=2, train_tasks=["x"]), r"unknown task in train_tasks 'x'"),
        (lambda c: c.update(train_tasks=["a"]), r"unknown key 'train_tasks'"),
        (lambda c: c.update(format=None), r"damaged \(format None\), save the model again"),
        (lambda c: c.pop("tree"), r"damaged \(no 'tree'\), save the model again"),
        (lambda c: c.update(trees=1), r"unknown key 'trees': did you mean 'tree'\?"),
        (lambda c: (c.clear(), c.update(peft_type="LORA")), r"this is an adapter of PEFT"),
        (lambda c: c.update(tree={"format": 9, "levels": []}), r"tree format 9 is newer"),
        (lambda c: c["spec"].pop("sites"), r"not a description of a backbone \(KeyError: 'sites'\)"),
        (lambda c: c.update(tasks=3), r"damaged \(TypeError"),
        (lambda c: c.update(dtype="float31"), r"damaged \(dtype 'float31'\)"),
        (lambda c: c.update(hashes={}), r"damaged \(KeyError"),
        (lambda c: c["backbone"].update(colour="red"), r"damaged \(TypeError: .*colour"),
        (lambda c: c["tasks"][0].pop("class"), r"does not describe an object"),
        (lambda c: c["adapter"].update({"class": "branchtune.Nonsense"}), r"branchtune.Nonsense cannot be imported"),
        (lambda c: c["adapter"].update({"class": "nowhere.LoRA"}), r"nowhere.LoRA cannot be imported"),
        (lambda c: c["adapter"].update({"class": "os.system"}), r"os.system is no Adapter"),
        (lambda c: c["adapter"].update({"class": "branchtune.Depth"}), r"branchtune.Depth is no Adapter"),
        (lambda c: c["adapter"]["args"].update(rank=1), r"branchtune.LoRA does not take these arguments \(.*rank"),
        (lambda c: c["adapter"]["args"].update(r=0), r"LoRA rank must be at least 1"),
    ],
)
def test_the_configuration(
    out: Path, backbone: nn.Module, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit_config(out, change)
    assert "adapter_config.json: " in refused(message, out, backbone=backbone)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["adapter"].update({"class": "branchtune.Newer"}), r"branchtune.Newer cannot be imported"),
        (lambda c: c["adapter"]["args"].update(rank=1), r"branchtune.LoRA does not take these arguments"),
        (lambda c: c.update(quantised=True), r"unknown key 'quantised'"),
    ],
)
def test_a_model_of_a_newer_version(
    out: Path, backbone: nn.Module, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    edit_config(out, change)
    assert "saved by" not in refused(message, out, backbone=backbone)
    for version, said in [("0.0.9", False), ("0.10.0", True), ("99.1rc1", True), ("unknown", False), (None, False)]:
        edit_config(out, lambda c, version=version: c.update(branchtune_version=version))
        clause = f" (saved by branchtune {version}, this is {bt.__version__}: update branchtune)"
        assert refused(message, out, backbone=backbone).endswith(clause) == said


def test_a_model_of_a_newer_version_loads_where_it_can(out: Path, backbone: nn.Module) -> None:
    edit_config(out, lambda c: c.update(branchtune_version="99.0.0"))
    bt.MultiTaskModel.from_pretrained(out, backbone=backbone)


@pytest.mark.parametrize("text", ["", '{"format": 1, "tas', "[]", "\xff"])
def test_a_configuration_that_is_no_json_object(out: Path, text: str) -> None:
    (out / "adapter_config.json").write_bytes(text.encode("latin-1"))
    refused(r"adapter_config.json is damaged .*save the model again", out)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "decoders.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "one bit", "folder"])
def test_damaged_weights(out: Path, backbone: nn.Module, name: str, damage: str) -> None:
    path = out / name
    data = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        path.write_bytes({"truncated": data[:-8], "empty": b"", "text": b"x" * 99, "one bit": flipped}[damage])
    message = {
        "one bit": r"is not the file that was saved with adapter_config.json: damaged or replaced",
        "folder": "is missing",
    }.get(damage, "is damaged")
    assert name in refused(message, out, backbone=backbone)


def test_a_pickle_is_never_loaded(out: Path, backbone: nn.Module) -> None:
    torch.save({"w": torch.zeros(1)}, out / "decoders.safetensors")
    refused("decoders.safetensors is damaged", out, backbone=backbone)


def test_adapters_of_another_tree_or_rank(out: Path, tmp_path: Path, backbone: nn.Module) -> None:
    model_on(backbone, tree=None).save_pretrained(tmp_path / "shared")
    shutil.copy(tmp_path / "shared" / "adapter_model.safetensors", out)
    refused(
        r"adapter_model.safetensors does not belong to this tree and adapter: \d+ weights are missing "
        r"\(adapters.2/a\+b.*\), \d+ are unexpected \(adapters.2/a\+b\+c.*\)",
        out,
        backbone=backbone,
    )
    model_on(backbone, adapter=bt.LoRA(r=3)).save_pretrained(tmp_path / "rank")
    shutil.copy(tmp_path / "rank" / "adapter_model.safetensors", out)
    refused(r"lora_A has shape \(3, 8\), the model needs \(2, 8\)", out, backbone=backbone)


def test_missing_and_unexpected_weights_of_decoders(out: Path, backbone: nn.Module) -> None:
    path = out / "decoders.safetensors"
    edit_tensors(path, lambda t: t.update(more=t.pop("a.output.bias")))
    refused(r"1 weights are missing \(a.output.bias\), 1 are unexpected \(more\)", out, backbone=backbone)


def test_another_backbone(out: Path, tmp_path: Path) -> None:
    other = create_backbone(SWIN, checkpoint=weights_file(tmp_path, seed=1), **SIZES)
    refused(
        r"out was trained on swin_tiny_patch4_window7_224.*weights of weights0.safetensors, weights [0-9a-f]{12}, and "
        r"this backbone is another one: layers.0.blocks.0.attn.* has other values; pass that one as backbone=",
        out,
        backbone=other,
    )
    refused("has other values", out, backbone_checkpoint=tmp_path / "weights1.safetensors")
    refused("it has no layers.0", out, backbone=timm.create_model("resnet18"))
    wide = create_backbone(SWIN, pretrained=False, **{**SIZES, "embed_dim": 16})
    refused(r"has shape \[.*\], not \[.*\]", out, backbone=wide)
    refused("it has no layers.0", out, backbone=nn.Linear(2, 2))


class Strided(nn.Module):
    """Convolutions whose weights do not tell how they are applied."""

    def __init__(self, **last: Any) -> None:
        super().__init__()
        self.stem, self.one = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, **{"padding": 1, **last})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(self.stem(images))))


@pytest.mark.parametrize("arguments", [{}, {"adapter": None, "train_backbone": True, "tree": None}])
def test_the_same_weights_applied_otherwise(tmp_path: Path, arguments: dict[str, Any]) -> None:
    adapter, tree = bt.LoRA(r=2, target_modules=["one"]), bt.TaskTree([[["a", "b", "c"]]] * 2)
    options = {"adapter": adapter, "tree": tree, "levels": ["one", "two"], "image_size": 32, **arguments}
    backbone, dilated = Strided(), Strided(padding=2, dilation=2)
    dilated.load_state_dict(backbone.state_dict())
    model_on(backbone, **options).save_pretrained(tmp_path / "out")
    bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone)
    refused(r"this backbone is another one: two has padding \(2, 2\), not \(1, 1\)", tmp_path / "out", backbone=dilated)


@pytest.mark.parametrize("key", ["checkpoint_path", "pretrained_cfg_overlay", "pretrained_cfg", "cache_dir"])
def test_a_file_that_a_configuration_names_is_not_read(
    out: Path, backbone: nn.Module, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_config(out, lambda config: config["backbone"]["kwargs"].update({key: str(out / "README.md")}))
    monkeypatch.setattr(timm, "create_model", None)
    refused("cannot be created again by name: pass it as backbone=", out)
    bt.MultiTaskModel.from_pretrained(out, backbone=backbone)


def test_a_backbone_made_with_a_file_of_timms_is_saved_without_its_path(tmp_path: Path) -> None:
    overlay = {"mean": (0.5, 0.5, 0.5)}
    backbone = create_backbone(SWIN, pretrained=False, pretrained_cfg_overlay=overlay, **SIZES)
    model_on(backbone).save_pretrained(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "adapter_config.json").read_text())["backbone"] is None
    bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone)


def test_a_single_changed_weight(out: Path, backbone: nn.Module, saved: Path) -> None:
    changed = create_backbone(SWIN, pretrained=False, **SIZES)
    changed.load_state_dict(backbone.state_dict())
    bt.MultiTaskModel.from_pretrained(out, backbone=changed)
    with torch.no_grad():
        changed.layers[1].blocks[0].mlp.fc1.weight[3, 2] += 0.01
    refused("layers.1.blocks.0.mlp.fc1.weight has other values", out, backbone=changed)


def test_rounding_of_resampled_weights_is_no_other_backbone(out: Path, backbone: nn.Module) -> None:
    rounded = create_backbone(SWIN, pretrained=False, **SIZES)
    rounded.load_state_dict(
        {k: v * (1 + 1e-7) if v.is_floating_point() else v for k, v in backbone.state_dict().items()}
    )
    bt.MultiTaskModel.from_pretrained(out, backbone=rounded)


def test_the_weights_must_be_passed_where_they_cannot_be_had(
    out: Path, tmp_path: Path, backbone: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused(
        r"its backbone's weights came from the file weights0.safetensors \(SHA-256 [0-9a-f]{64}\): pass its path as "
        "backbone_checkpoint=",
        out,
    )
    refused("exclude each other", out, backbone=backbone, backbone_checkpoint=tmp_path / "x")
    refused(
        r"out: its backbone cannot be created again: .*no such checkpoint file",
        out,
        backbone_checkpoint=tmp_path / "none.safetensors",
    )
    model_on(create_backbone(SWIN, pretrained=False, **SIZES)).save_pretrained(tmp_path / "random")
    refused(r"cannot be had again, it was created with pretrained=False: pass the module as", tmp_path / "random")

    def offline(*args: Any, pretrained: bool = False, **kwargs: Any) -> nn.Module:
        if pretrained:
            raise ConnectionError("Name or service not known")
        return create(*args, **kwargs)

    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    model_on(timm.create_model("resnet18"), image_size=64).save_pretrained(tmp_path / "timm")
    refused(r"resnet18.a1_in1k could not be downloaded \(Name or service not known\).*backbone=", tmp_path / "timm")


def test_the_device(out: Path, backbone: nn.Module) -> None:
    refused("device 'gpu' cannot be used", out, backbone=backbone, device="gpu")


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path, backbone: nn.Module) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds other files \(thesis.tex\): save the model to a folder of its own"):
        model_on(backbone).save_pretrained(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": 3}, "metrics=3: pass numbers by task and name, such as evaluate returns"),
        ({"metrics": {"a": 0.5}}, "metrics="),
        ({"metrics": {"a": {"rmse": "low"}}}, "metrics="),
        ({"card": 3}, "card=3 is of type int: pass an instance, such as '# My model'"),
    ],
)
def test_what_no_card_can_be_made_of(
    tmp_path: Path, backbone: nn.Module, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        model_on(backbone).save_pretrained(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_keeps_the_old_model(tmp_path: Path, backbone: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    model_on(backbone).save_pretrained(tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    write, other = Path.write_bytes, model_on(backbone, seed=2)

    def full(path: Path, data: bytes) -> None:
        write(path, data[: len(data) // 2])
        if path.name == "decoders.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*out: No space left on device; free some space"):
        other.save_pretrained(tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before
