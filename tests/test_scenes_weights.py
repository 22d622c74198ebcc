"""The weights that ship with the package fit the network that their card describes."""

from __future__ import annotations

import json
from importlib.resources import files

import timm
import torch
from safetensors.torch import load_file

WEIGHTS = files("branchtune") / "weights"


def test_card_and_weights_agree_and_are_small():
    card = json.loads((WEIGHTS / "scenes_swin.json").read_text())
    path = WEIGHTS / "scenes_swin.safetensors"
    assert len(path.read_bytes()) < 8_000_000
    backbone = timm.create_model(card["backbone"], pretrained=False, num_classes=0, **card["backbone_args"])
    count = sum(p.numel() for p in backbone.parameters())
    assert count == card["parameters"] <= 3_000_000
    state = load_file(str(path))
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in state.values())
    backbone.load_state_dict({name: value.float() for name, value in state.items()})
    height, width = card["image_size"]
    features = backbone.eval().forward_intermediates(torch.zeros(1, 3, height, width), intermediates_only=True)
    assert [tuple(f.shape[1:]) for f in features] == [(32, 32, 32), (64, 16, 16), (128, 8, 8), (256, 4, 4)]


def test_no_dense_label_was_used():
    from branchtune.data.scenes import DENSE_LABELS, IMAGE_LABELS

    card = json.loads((WEIGHTS / "scenes_swin.json").read_text())
    assert set(card["labels"]) <= set(IMAGE_LABELS)
    assert not set(card["labels"]) & set(DENSE_LABELS)
