"""A model that trains in milliseconds: a four-level Swin, three tasks, a tree that forks twice."""

from __future__ import annotations

from functools import cache
from typing import Any

import timm
import torch
from torch import nn

import branchtune as bt
from branchtune.backbone.spec import BackboneSpec

TREE = bt.TaskTree([[["a", "b", "c"]], [["a", "b", "c"]], [["a", "b"], ["c"]], [["a"], ["b"], ["c"]]])


def small_swin() -> nn.Module:
    sizes = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2, "drop_path_rate": 0.0}
    return timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, img_size=32, **sizes)


@cache
def _spec(levels: str | tuple[str, ...] | None) -> BackboneSpec:
    """Of the small Swin, which is traced once."""
    with torch.random.fork_rng(devices=[]):
        return bt.trace_backbone(small_swin(), levels)


def small_model(seed: int = 0, *, levels: str | list[str] | None = None, **arguments: Any) -> bt.MultiTaskModel:
    """In float64, without dropout; adapters start at random values, so that all of them have non-zero gradients."""
    spec = _spec(tuple(levels) if isinstance(levels, list) else levels)
    torch.manual_seed(seed)
    tasks = [bt.Depth("a"), bt.Saliency("b"), bt.SemanticSegmentation("c", num_classes=3)]
    defaults = {"tree": TREE, "adapter": bt.LoRA(r=2), "decoder": bt.LightDecoder(dim=8, stride=8), "spec": spec}
    model = bt.MultiTaskModel(small_swin(), tasks, **{**defaults, **arguments})
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.double()
