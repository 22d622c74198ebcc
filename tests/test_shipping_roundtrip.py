"""A model that was saved and loaded is the same model, bit by bit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import ModelCard
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.source import create_backbone
from branchtune.errors import UserError
from branchtune.shipping.files import FILES
from shipping_models import SIZES, SWIN, TREE, assert_same_outputs, model_on, swin, tasks, weights_file

MODELS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": bt.LoRA(r=2, lora_alpha=3.0, target_modules=["qkv", "fc1"], rank_pattern={2: 3})},
    "bottleneck": {"adapter": bt.Bottleneck(reduction=2, activation="relu")},
    "extras": {"extras": ("norms", "relative_position", "patch_embed", "patch_merging")},
    "full fine-tuning": {"adapter": None, "train_backbone": True, "tree": None},
    "batch norm in the decoders": {"decoder": bt.HRNetDecoder(widths=(4, 4, 4, 4), expansion=1)},
    "image-level tasks": {
        "tasks": [bt.ImageRegression("a", num_outputs=2), bt.ImageClassification("b", 4), bt.Normals("c")]
    },
    "decoders only": {"adapter": None, "tree": None},
    "merged levels": {"levels": "after_merging"},
}


def keys(path: Path) -> set[str]:
    with safe_open(path, "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("arguments", MODELS.values(), ids=MODELS)
def test_save_load_equal(tmp_path: Path, arguments: dict[str, Any]) -> None:
    model = model_on(swin(tmp_path), **arguments)
    model.save_pretrained(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(FILES)
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone_checkpoint=tmp_path / "weights0.safetensors")
    assert not loaded.training
    assert_same_outputs(model, loaded)
    assert loaded.tree == model.tree
    assert loaded.adapter == model.adapter
    assert loaded.decoder == model.decoder
    assert loaded.extras == model.extras
    assert loaded.spec == model.spec
    assert loaded.count_parameters() == model.count_parameters()
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert trains == {name: parameter.requires_grad for name, parameter in loaded.named_parameters()}


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mobilenetv4_conv_small"])
def test_other_backbones_passed_as_they_are(tmp_path: Path, name: str) -> None:
    sizes = {"img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 4} if name.startswith("vit") else {}
    backbone = timm.create_model(name, pretrained=False, **sizes).eval()
    size = 32 if sizes else 64
    model = model_on(backbone, image_size=size)
    model.save_pretrained(tmp_path / "out")
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone), size)


class Masked(nn.Module):
    """A plain module whose second input carries the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, 4)
        self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.second(self.first(self.stem(images)).relu() * mask)


def test_a_plain_module(tmp_path: Path) -> None:
    backbone, mask = Masked(), torch.rand(1, 1, 8, 8)
    tree = bt.TaskTree([[["a", "b", "c"]], [["a", "b"], ["c"]]])
    model = model_on(backbone, tree=tree, levels=["first", "second"], image_size=32, example_inputs={"mask": mask})
    model.save_pretrained(tmp_path / "out")
    with pytest.raises(UserError, match=r"its backbone \(Masked\) cannot be created again by name: pass it as"):
        bt.MultiTaskModel.from_pretrained(tmp_path / "out")
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone)
    x = torch.randn(2, 3, 32, 32)
    for name, output in model(x, mask=mask).items():
        assert torch.equal(output, loaded(x, mask=mask)[name])


def test_no_frozen_weight_is_saved(tmp_path: Path) -> None:
    model_on(swin(tmp_path)).save_pretrained(tmp_path / "out")
    adapters = keys(tmp_path / "out" / "adapter_model.safetensors")
    assert {key.partition(".")[0] for key in adapters} == {"adapters"}
    model_on(swin(tmp_path), extras=["relative_position"]).save_pretrained(tmp_path / "out")
    extras = keys(tmp_path / "out" / "adapter_model.safetensors") - adapters
    assert extras == {f"extras.layers.{level}.blocks.0.attn.relative_position_bias_table" for level in range(4)}


def test_full_fine_tuning_needs_no_other_weights(tmp_path: Path) -> None:
    backbone = create_backbone(SWIN, pretrained=False, **SIZES)
    model = model_on(backbone, adapter=None, train_backbone=True, tree=None)
    model.save_pretrained(tmp_path / "out")
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained(tmp_path / "out"))


class Classified(nn.Module):
    """A classifier with a BatchNorm, as RepViT's; timm makes it without one where it has no classes."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.pretrained_cfg = {"classifier": "head.fc"}
        self.stem, self.one, self.two = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.BatchNorm2d(8), nn.Conv2d(8, classes, 1)) if classes else nn.Identity()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.two(torch.tanh(self.one(self.stem(images)))))


CLASSIFIED: dict[str, Any] = {**MODELS["full fine-tuning"], "levels": ["one", "two"], "image_size": 32}


@pytest.mark.parametrize(("saved", "loaded"), [(5, 0), (0, 5)])
def test_a_fine_tuned_backbone_is_the_same_without_its_classifier(tmp_path: Path, saved: int, loaded: int) -> None:
    model = model_on(Classified(saved), **CLASSIFIED)
    model.save_pretrained(tmp_path / "out")
    assert not [key for key in keys(tmp_path / "out" / "adapter_model.safetensors") if "head" in key]
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=Classified(loaded)))


def test_an_older_file_holds_the_classifiers_statistics(tmp_path: Path) -> None:
    model = model_on(Classified(5), **CLASSIFIED)
    model.save_pretrained(tmp_path / "out")
    weights, config = tmp_path / "out" / "adapter_model.safetensors", tmp_path / "out" / "adapter_config.json"
    before = json.loads(config.read_text())
    save_file({**load_file(weights), "backbone.head.0.running_mean": torch.zeros(8)}, weights)
    before["hashes"][weights.name] = hashlib.sha256(weights.read_bytes()).hexdigest()
    config.write_text(json.dumps(before))
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=Classified(5)))


def test_loading_leaves_the_users_backbone_and_random_numbers_alone(tmp_path: Path) -> None:
    backbone = swin(tmp_path)
    model = model_on(backbone, adapter=None, train_backbone=True, tree=None)
    model.save_pretrained(tmp_path / "out")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    state = torch.get_rng_state()
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same_outputs(model, loaded)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(tmp_path: Path, dtype: torch.dtype) -> None:
    model = model_on(swin(tmp_path)).to(dtype)
    model.save_pretrained(tmp_path / "out")
    loaded = bt.MultiTaskModel.from_pretrained(
        tmp_path / "out", backbone_checkpoint=tmp_path / "weights0.safetensors", device="cpu"
    )
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert_same_outputs(model, loaded)


def test_a_loaded_model_recomputes_the_levels_that_it_is_told_to(tmp_path: Path) -> None:
    model, checkpoint = model_on(swin(tmp_path)), tmp_path / "weights0.safetensors"
    model.save_pretrained(tmp_path / "out")
    loaded = bt.MultiTaskModel.from_pretrained(
        tmp_path / "out", backbone_checkpoint=checkpoint, checkpoint_levels=[1, 2]
    )
    assert loaded.backbone.checkpoint_levels == (1, 2)
    assert_same_outputs(model, loaded)
    with pytest.raises(UserError, match="checkpoint_levels names level 9"):
        bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone_checkpoint=checkpoint, checkpoint_levels=[9])


def test_saving_again_replaces_the_model(tmp_path: Path) -> None:
    backbone = swin(tmp_path)
    model_on(backbone, seed=1).save_pretrained(tmp_path / "out")
    second = model_on(backbone, seed=2)
    second.save_pretrained(tmp_path / "out")
    assert_same_outputs(second, bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone))


def test_the_card_shows_tree_counts_and_how_to_load(tmp_path: Path) -> None:
    model = model_on(swin(tmp_path))
    model.save_pretrained(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert str(TREE) in card
    assert f"| adapters | {model.count_parameters()['adapters']:,} |" in card
    assert 'from_pretrained("out", backbone_checkpoint="weights0.safetensors")' in card
    assert "images of 32x32 pixels" in card
    assert "Backbone: swin_tiny_patch4_window7_224.ms_in1k, img_size=32," in card
    assert "mean (0.485, 0.456, 0.406)" in card
    model_on(create_backbone(SWIN, pretrained=False, **SIZES)).save_pretrained(tmp_path / "random")
    card = (tmp_path / "random" / "README.md").read_text()
    assert 'from_pretrained("random", backbone=backbone)' in card
    assert "pass the module that the model was trained on" in card
    model.save_pretrained(tmp_path / "out", card="# mine\n")
    assert (tmp_path / "out" / "README.md").read_text() == "# mine\n"


def test_the_configuration_is_readable(tmp_path: Path) -> None:
    model_on(swin(tmp_path)).save_pretrained(tmp_path / "out")
    text = (tmp_path / "out" / "adapter_config.json").read_text()
    config = json.loads(text)
    assert config["format"] == 1
    assert config["branchtune_version"] == bt.__version__
    assert config["adapter"] == {
        "class": "branchtune.LoRA",
        "args": {
            "r": 2,
            "lora_alpha": 16.0,
            "lora_dropout": 0.0,
            "target_modules": None,
            "rank_pattern": {},
            "alpha_pattern": {},
        },
    }
    assert config["tasks"][1] == {
        "class": "branchtune.Edges",
        "args": {"name": "b", "weight": 50.0, "positive_weight": 0.9, "match_dist": None},
    }
    assert config["backbone"]["checkpoint_file"] == "weights0.safetensors"
    assert len(text.splitlines()) < 30


def test_a_backbone_whose_arguments_json_cannot_hold_is_saved_all_the_same(tmp_path: Path) -> None:
    backbone = create_backbone(SWIN, pretrained=False, norm_layer=nn.LayerNorm, **SIZES)
    model = model_on(backbone)
    model.save_pretrained(tmp_path / "out")
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone=backbone))
    with pytest.raises(UserError, match="cannot be created again by name"):
        bt.MultiTaskModel.from_pretrained(tmp_path / "out")


def test_tasks_come_back_with_their_arguments(tmp_path: Path) -> None:
    model_on(swin(tmp_path), tasks=tasks()).save_pretrained(tmp_path / "out")
    loaded = bt.MultiTaskModel.from_pretrained(tmp_path / "out", backbone_checkpoint=weights_file(tmp_path))
    assert [vars(task) for task in loaded.tasks.values()] == [vars(task) for task in tasks()]
    assert [type(task) for task in loaded.tasks.values()] == [type(task) for task in tasks()]


@pytest.mark.parametrize(
    ("arguments", "tag"),
    [
        ({}, "lora"),
        ({"adapter": None, "tree": None}, "decoders-only"),
        ({"adapter": None, "tree": None, "extras": ["norms"]}, "partial-fine-tuning"),
        ({"adapter": None, "tree": None, "train_backbone": True}, "full-fine-tuning"),
    ],
)
def test_the_card_is_tagged_with_what_was_trained(arguments: dict[str, Any], tag: str, tmp_path: Path) -> None:
    model_on(swin(tmp_path), **arguments).save_pretrained(tmp_path / "out")
    data = ModelCard.load(tmp_path / "out" / "README.md").data
    assert (data.library_name, data.tags) == ("branchtune", ["multi-task-learning", tag])
    assert data.base_model is None  # the weights came from a local file
