"""Backbones, trees and models that are timed; random weights cost what trained ones do."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import timm
import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.spec import BackboneSpec

BACKBONES = {"Swin-T": "swin_tiny_patch4_window7_224", "ViT-S": "vit_small_patch16_224", "PVTv2-B0": "pvt_v2_b0"}
TREES = {"1-1-1-1": (1, 1, 1, 1), "1-1-2-4": (1, 1, 2, 4), "1-2-3-4": (1, 2, 3, 4), "4-4-4-4": (4, 4, 4, 4)}
TASKS = ("semseg", "depth", "normals", "edge")
LORA = bt.LoRA(r=16, lora_alpha=32)


@lru_cache(maxsize=1)
def traced(name: str, device: torch.device) -> tuple[nn.Module, BackboneSpec]:
    torch.manual_seed(0)
    backbone = timm.create_model(BACKBONES[name]).eval().to(device)
    return backbone, bt.trace_backbone(backbone)


def images(batch: int, device: torch.device) -> Tensor:
    return torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)


def tree(groups: Sequence[int], tasks: Sequence[str] = TASKS) -> bt.TaskTree:
    """The last tasks share longest: level l has each of the first groups[l] - 1 tasks alone and the rest together."""
    return bt.TaskTree([[[task] for task in tasks[: count - 1]] + [list(tasks[count - 1 :])] for count in groups])


def four_tasks() -> list[bt.Task]:
    return [
        bt.SemanticSegmentation("semseg", num_classes=21),
        bt.Depth("depth"),
        bt.Normals("normals"),
        bt.Edges("edge"),
    ]


def model(
    name: str,
    groups: Sequence[int],
    device: torch.device,
    adapter: bt.Adapter = LORA,
    tasks: Sequence[bt.Task] | None = None,
    checkpoint_levels: bool = False,
) -> bt.MultiTaskModel:
    """A model whose adapters are not zero; its decoders are light ones at stride 8."""
    backbone, spec = traced(name, device)
    tasks = four_tasks() if tasks is None else tasks
    torch.manual_seed(0)
    made = bt.MultiTaskModel(
        backbone,
        tasks,
        tree(groups, [task.name for task in tasks]),
        adapter,
        bt.LightDecoder(32, 8),
        checkpoint_levels=checkpoint_levels,
        spec=spec,
    )
    for parameter in made.backbone.adapters.parameters():
        nn.init.normal_(parameter, std=0.02)
    return made.eval()
