"""Backbones, trees and models that are timed; random weights cost what trained ones do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.source import create_backbone
from branchtune.backbone.spec import BackboneSpec

BACKBONES = {"Swin-T": "swin_tiny_patch4_window7_224", "ViT-S": "vit_small_patch16_224", "PVTv2-B0": "pvt_v2_b0"}
TREES = {"1-1-1-1": (1, 1, 1, 1), "1-1-2-4": (1, 1, 2, 4), "1-2-3-4": (1, 2, 3, 4), "4-4-4-4": (4, 4, 4, 4)}
TASKS = ("semseg", "depth", "normals", "edge")
LORA = bt.LoRA(r=16, lora_alpha=32)
COMB = bt.Comb(r=16, lora_alpha=32)

#: constructor arguments that shrink a family to the time that a test has
SHRUNKEN: dict[str, dict[str, Any]] = {
    "swin": {"embed_dim": 8, "depths": (2, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2},
    "vit": {"embed_dim": 16, "depth": 4, "num_heads": 2},
    "deit": {"embed_dim": 16, "depth": 4, "num_heads": 2},
    "pvt": {"depths": (1, 1, 1, 1), "embed_dims": (8, 8, 16, 16), "num_heads": (1, 1, 2, 2)},
}


def shrinking(model: str) -> dict[str, Any]:
    """What shrinks the timm model of this name."""
    return SHRUNKEN[model.partition("_")[0]]


class Workloads:
    """Models and images on one device, in one precision.

    Args:
        small: shrunken backbones, one batch size and two trees, to try the benchmarks out.

    Attributes:
        batches: numbers of images; the last is the one that memory is measured with.
        trees: names of the trees.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype, small: bool) -> None:
        self.device, self.dtype, self.small = device, dtype, small
        self.batches = (2,) if small else (1, 8)
        self.trees = ("1-1-1-1", "1-1-2-4") if small else tuple(TREES)
        self._last: tuple[str, nn.Module, BackboneSpec] | None = None

    def traced(self, name: str) -> tuple[nn.Module, BackboneSpec]:
        """The backbone of this name and its description; the last one is kept."""
        if self._last is None or self._last[0] != name:
            torch.manual_seed(0)
            options = shrinking(BACKBONES[name]) if self.small else {}
            size = (self.side, self.side)
            backbone = create_backbone(BACKBONES[name], pretrained=False, image_size=size, **options)
            backbone.eval().to(self.device, self.dtype)
            self._last = (name, backbone, bt.trace_backbone(backbone, image_size=size))
        return self._last[1:]

    @property
    def side(self) -> int:
        """Height and width of the images in pixels."""
        return 32 if self.small else 224

    def images(self, batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 3, self.side, self.side, generator=generator).to(self.device, self.dtype)

    def model(
        self,
        name: str,
        groups: Sequence[int],
        adapter: bt.Adapter = LORA,
        tasks: Sequence[bt.Task] | None = None,
        checkpoint_levels: bool = False,
    ) -> bt.MultiTaskModel:
        """A model whose adapters are not zero; its decoders are light ones at stride 8."""
        backbone, spec = self.traced(name)
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


def labelled(tasks: Sequence[bt.Task], images: Tensor) -> dict[str, Any]:
    """A batch of these images with random labels of the four tasks, on their device."""
    generator = torch.Generator().manual_seed(0)
    count, _, height, width = images.shape

    def random(*shape: int) -> Tensor:
        return torch.rand(count, *shape, height, width, generator=generator)

    labels: dict[str, Tensor] = {}
    for task in tasks:
        if isinstance(task, bt.SemanticSegmentation):
            labels[task.name] = (task.out_channels * random()).long()
        elif isinstance(task, bt.Depth):
            labels[task.name] = 1 + random()
        elif isinstance(task, bt.Normals):
            labels[task.name] = nn.functional.normalize(random(3) - 0.5, dim=1)
        else:
            labels[task.name] = (random() > 0.9).float()
    moved = {name: label.to(images.device) for name, label in labels.items()}
    return {"id": [str(i) for i in range(count)], "image": images, **moved}
