"""Small models, tasks and batches for the tests of affinity and planning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric

from branchtune.backbone.spec import BackboneSpec, Feature, Level, Site
from branchtune.tasks.task import Task

SWIN = {
    "model_name": "swin_tiny_patch4_window7_224",
    "img_size": 32,
    "window_size": 4,
    "embed_dim": 16,
    "depths": (1, 2, 1, 1),
    "num_heads": (1, 1, 2, 2),
}


class Fit(Task):
    """Squared error of the mean over channels, times a sign: -1 makes the opposite of the task."""

    headline = "error"
    higher_is_better = False

    def __init__(self, name: str, sign: float = 1.0) -> None:
        super().__init__(name, out_channels=2)
        self.sign = sign

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        known = ~target.isnan()
        return self.sign * (output.mean(1)[known] - target[known]).square().mean()

    def metrics(self) -> dict[str, Metric]:
        return {"error": MeanMetric()}


class Plain(nn.Module):
    """Layers without `feature_info`; every level is a single layer, so that a site is also the end of a level."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.first = nn.Conv2d(width, width, 1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.third = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.stem(x), approximate="tanh")
        for layer in (self.first, self.second, self.third):
            x = nn.functional.gelu(self.call(layer, x), approximate="tanh")
        return x

    def call(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(x)


class ByKeyword(Plain):
    def call(self, layer: nn.Module, x: Tensor) -> Tensor:
        return layer(input=x)


PLAIN_LEVELS = ["first", "second", "third"]


def swin(**changes: Any) -> nn.Module:
    torch.manual_seed(0)
    arguments = {**SWIN, **changes}
    return timm.create_model(arguments.pop("model_name"), **arguments)


def batches(
    tasks: Sequence[Task], images: int = 8, batch: int = 4, size: int = 32, seed: int = 1, noise: float = 1.0
) -> list[dict[str, Any]]:
    """Images that differ by `noise` from a common one; targets are values, independent noise per task."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(3, size, size, generator=generator)
    found = []
    for start in range(0, images, batch):
        count = min(batch, images - start)
        found.append(
            {
                "id": [f"s{start + i}" for i in range(count)],
                "image": common + noise * torch.randn(count, 3, size, size, generator=generator),
                **{t.name: torch.randn(count, size, size, generator=generator) for t in tasks},
            }
        )
    return found


def drop_labels(loader: Sequence[dict[str, Any]], task: str, samples: Sequence[int]) -> None:
    """Make these samples (counted over the whole loader) unlabelled for a task."""
    for index, (batch, i) in enumerate(_positions(loader)):
        if index in samples:
            batch[task][i] = torch.nan


def _positions(loader: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], int]]:
    for batch in loader:
        for i in range(len(batch["image"])):
            yield batch, i


def made_up_spec(levels: Sequence[tuple[int, int]], stem: int = 10) -> BackboneSpec:
    """A backbone that exists on paper: per level its frozen MACs and the channels of its only (linear) site."""
    return BackboneSpec(
        "paper",
        (32, 32),
        tuple(Level(i, f"l{i}", f"l{i}", Feature(c, 8, 8, "NCHW"), macs) for i, (macs, c) in enumerate(levels)),
        tuple(Site(f"l{i}.fc1", i, "linear", c, c, 1 + i) for i, (_, c) in enumerate(levels)),
        {},
        (),
        (),
        stem,
    )
