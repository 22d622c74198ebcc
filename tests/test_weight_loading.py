from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from branchtune.errors import UserError
from branchtune.weight_loading import file_sha256, load_weights

DEIT = Path(__file__).parents[2] / "shared" / "weights" / "deit_tiny_patch16_224.safetensors"
SMALL_VIT = {"depth": 1, "embed_dim": 12, "num_heads": 2, "img_size": 32}
SMALL_SWIN = {"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4, "img_size": 64}


def vit(**changes: object) -> nn.Module:
    return timm.create_model("vit_tiny_patch16_224", **{**SMALL_VIT, "num_classes": 0, **changes})


def swin(**changes: object) -> nn.Module:
    model = "swin_tiny_patch4_window7_224"
    return timm.create_model(model, **{**SMALL_SWIN, "num_classes": 0, **changes})


def save(state: dict[str, Tensor], path: Path) -> Path:
    save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small ViT with a classifier, as a library would publish it."""
    torch.manual_seed(0)
    return save(vit(num_classes=10).state_dict(), tmp_path / "vit.safetensors")


def test_every_key_is_accounted_for(checkpoint: Path):
    model = vit()
    report = load_weights(model, checkpoint)
    stored = load_file(checkpoint)
    assert set(report.loaded) == set(model.state_dict())
    assert report.unexpected == ("head.bias", "head.weight")
    assert report.missing == report.resampled == ()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items())


def test_position_embeddings_are_resampled_to_the_image_size_of_the_model(checkpoint: Path):
    model = vit(img_size=(48, 64))
    report = load_weights(model, checkpoint)
    assert report.resampled == ("pos_embed",)
    assert set(report.loaded) == set(model.state_dict()) - {"pos_embed"}
    expected = resample_abs_pos_embed(load_file(checkpoint)["pos_embed"], (3, 4), num_prefix_tokens=1)
    assert torch.equal(model.state_dict()["pos_embed"], expected)


def test_relative_position_tables_are_resampled_to_the_window_of_the_model(tmp_path: Path):
    state = swin().state_dict()
    tables = sorted(key for key in state if key.endswith("relative_position_bias_table"))
    offsets = torch.arange(-3.0, 4)
    ramp = (offsets[:, None] + 10 * offsets[None]).reshape(49, 1)
    for key in tables:
        state[key] = ramp.expand_as(state[key])
    model = swin(window_size=8)
    report = load_weights(model, save(state, tmp_path / "swin.safetensors"))
    assert report.resampled == tuple(tables)
    for key in tables:
        table = model.state_dict()[key].reshape(15, 15, -1)
        torch.testing.assert_close(table, -table.flip(0, 1))
        centre = table[5:10, 5:10]
        assert (centre.diff(dim=0) > 0).all()
        assert (centre.diff(dim=1) > 0).all()


def test_buffers_of_older_files_are_explained(tmp_path: Path):
    state = swin().state_dict()
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(16, 16)
    report = load_weights(swin(), save(state, tmp_path / "swin.safetensors"))
    assert report.unexpected == ("layers.0.blocks.0.attn.relative_position_index",)


@pytest.mark.parametrize("suffix", [".pth", ".bin", ".pt"])
@pytest.mark.parametrize("nest", [lambda s: s, lambda s: {"model": s, "epoch": 3}], ids=["plain", "nested"])
def test_pytorch_files_load_like_safetensors(checkpoint: Path, suffix: str, nest: Callable[..., object]):
    other = checkpoint.with_suffix(suffix)
    torch.save(nest(load_file(checkpoint)), other)
    a, b = vit(), vit()
    assert load_weights(a, other) == load_weights(b, checkpoint)
    assert all(torch.equal(tensor, b.state_dict()[key]) for key, tensor in a.state_dict().items())


def test_half_precision_files_load_into_float32(checkpoint: Path):
    path = save({k: t.half() for k, t in load_file(checkpoint).items()}, checkpoint.with_name("half.safetensors"))
    model = vit()
    load_weights(model, path)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


def test_a_classifier_of_another_size_is_left_alone(checkpoint: Path):
    model = vit(num_classes=3)
    before = model.head.weight.clone()
    report = load_weights(model, checkpoint)
    assert report.missing == report.unexpected == ("head.bias", "head.weight")
    assert torch.equal(model.head.weight, before)


def test_a_plain_module_loads_by_its_keys(tmp_path: Path):
    path = save({"0.weight": torch.ones(2, 2), "0.bias": torch.ones(2)}, tmp_path / "plain.safetensors")
    model = nn.Sequential(nn.Linear(2, 2))
    assert load_weights(model, path).loaded == ("0.bias", "0.weight")
    assert torch.equal(model[0].weight, torch.ones(2, 2))


def test_the_report_is_json_and_one_line(checkpoint: Path):
    report = load_weights(vit(img_size=64), checkpoint)
    assert json.loads(json.dumps(report.to_json())) == {
        "loaded": list(report.loaded),
        "resampled": ["pos_embed"],
        "missing": [],
        "unexpected": ["head.bias", "head.weight"],
    }
    expected = "1 resampled (pos_embed), 0 missing, 2 unexpected (head.bias, head.weight)"
    assert report.summary() == f"{len(report.loaded)} loaded, {expected}"


def rename_block(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.replace("blocks.0.mlp.fc1", "blocks.0.mlp.fcx"): tensor for key, tensor in state.items()}


def drop_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if not key.startswith("norm.")}


def add_block(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "blocks.1.norm1.weight": torch.ones(12)}


def widen_block(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**state, "blocks.0.mlp.fc1.weight": torch.ones(7, 12)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename_block, r"2 keys are missing from the checkpoint \(blocks.0.mlp.fc1.bias, blocks.0.mlp.fc1.weight\)"),
        (drop_norm, r"2 keys are missing from the checkpoint \(norm.bias, norm.weight\)"),
        (add_block, r"1 keys are unknown to the model \(blocks.1.norm1.weight\)"),
        (widen_block, r"blocks.0.mlp.fc1.weight has shape \(7, 12\) but the model needs \(48, 12\)"),
    ],
)
def test_what_has_no_explanation_stops_and_leaves_the_model_alone(
    checkpoint: Path, change: Callable[..., dict[str, Tensor]], message: str
):
    save(change(load_file(checkpoint)), checkpoint)
    model = vit()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_weights(model, checkpoint)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_the_checkpoint_of_another_backbone_is_refused(checkpoint: Path):
    for model in (swin(), timm.create_model("resnet18"), vit(embed_dim=24)):
        with pytest.raises(UserError, match=r"vit\.safetensors: ") as caught:
            load_weights(model, checkpoint)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_damaged_file_is_named(checkpoint: Path, suffix: str):
    path = checkpoint.with_name(f"broken{suffix}")
    if suffix == ".pth":
        torch.save(load_file(checkpoint), path)
        whole = path.read_bytes()
    else:
        whole = checkpoint.read_bytes()
    for length in (0, 5, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=f"broken{suffix}: damaged") as caught:
            load_weights(vit(), path)
        assert "\n" not in str(caught.value)


class Trap:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return (Path.touch, (Path("sprung"),))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": Trap()}, "damaged, or not a file of tensors"),
        ([torch.ones(2)], "damaged, or not a file of tensors"),
        ({}, "no dictionary of tensors"),
        ({"a": 3}, "no dictionary of tensors"),
    ],
    ids=["code", "list", "empty", "number"],
)
def test_a_file_of_anything_but_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "odd.pth")
    with pytest.raises(UserError, match=message):
        load_weights(vit(), "odd.pth")
    assert not Path("sprung").exists()


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere\.pth: no such checkpoint file"):
        load_weights(vit(), tmp_path / "nowhere.pth")
    (tmp_path / "weights.npz").touch()
    with pytest.raises(UserError, match=r"weights\.npz: unknown checkpoint format, use one of \.safetensors"):
        load_weights(vit(), tmp_path / "weights.npz")


def test_file_sha256(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"abc" * 10**6)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 10**6).hexdigest()
    with pytest.raises(UserError, match="cannot be read"):
        file_sha256(tmp_path / "nowhere")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "swin_tiny_patch4_window7_224",
        "swinv2_tiny_window8_256",
        "pvt_v2_b0",
        "convnext_atto",
        "hiera_tiny_224",
        "deit_tiny_distilled_patch16_224",
        "resnet18",
        "mobilenetv4_conv_small",
        "efficientnet_lite0",
        "levit_128s",
    ],
)
def test_a_classifiers_checkpoint_gives_the_backbone_of_every_family(name: str, tmp_path: Path):
    whole = timm.create_model(name).eval()
    path = save(whole.state_dict(), tmp_path / "whole.safetensors")
    backbone = timm.create_model(name, num_classes=0).eval()
    report = load_weights(backbone, path)
    assert set(report.loaded) == set(backbone.state_dict())
    assert {key.split(".")[0] for key in report.unexpected} <= {"head", "head_dist", "fc", "classifier"}
    images = torch.rand(1, 3, 256, 256) if "256" in name else torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(backbone.forward_features(images), whole.forward_features(images))


@pytest.mark.data
@pytest.mark.skipif(not DEIT.exists(), reason=f"needs {DEIT.name} in the sibling folder of weights")
class TestDeiTTiny:
    NAME = "deit_tiny_patch16_224"

    def test_at_another_image_size_only_the_position_embedding_is_resampled(self):
        model = timm.create_model(self.NAME, img_size=(192, 256), num_classes=0)
        report = load_weights(model, DEIT)
        assert report.resampled == ("pos_embed",)
        assert report.unexpected == ("head.bias", "head.weight")
        assert report.missing == ()
        assert len(report.loaded) == len(model.state_dict()) - 1
        assert model.pos_embed.shape == (1, 1 + 12 * 16, 192)

    def test_at_its_own_size_it_equals_a_plain_load(self):
        model = timm.create_model(self.NAME, num_classes=0).eval()
        assert load_weights(model, DEIT).resampled == ()
        plain = timm.create_model(self.NAME).eval()
        plain.load_state_dict(load_file(DEIT))
        plain.reset_classifier(0)
        images = torch.rand(2, 3, 224, 224)
        with torch.no_grad():
            assert torch.equal(model(images), plain(images))
