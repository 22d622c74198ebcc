"""A two-level plain backbone that tests bend in one way each, and a two-task model on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import branchtune as bt

TREE = bt.TaskTree([[["b", "c"]], [["b"], ["c"]]])


class Tokens(nn.Module):
    """Tokens of patches, two blocks; subclasses change what happens between and inside the blocks."""

    def __init__(self, dim: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.one, self.two = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def tokens(self, images: Tensor) -> Tensor:
        return self.patches(images).flatten(2).transpose(1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(self.tokens(images))))


def grow(backbone: nn.Module, levels: Any = ("one", "two"), **options: Any) -> bt.MultiTaskModel:
    tasks = [bt.Depth("b"), bt.Depth("c")]
    model = bt.MultiTaskModel(
        backbone,
        tasks,
        TREE,
        bt.LoRA(r=2, target_modules=options.pop("target_modules", None)),
        bt.LightDecoder(8),
        levels=list(levels),
        image_size=32,
        **options,
    ).eval()
    for parameter in model.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model
