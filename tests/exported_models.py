"""Small models to export, and decoders and tasks that exporters cannot take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune.tasks.depth import Depth
from small_backbones import Tokens, grow


def tokens_model(**options: object) -> bt.MultiTaskModel:
    """Two linear layers; tasks b and c share the first and part before the second."""
    return grow(Tokens(), target_modules=["one", "two"], **options)


def random_images(batch: int, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(batch))


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


class OddModule(nn.Module):
    """A classifier of the last map after one operation that the exporters take or not."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        self.output, self.kind = nn.Conv2d(channels, 1, 1), kind

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        x = self.output(maps[-1])
        if self.kind == "values" and x.sum() > 0:
            x = x + 1
        if self.kind == "len":
            x = x.reshape(len(x), 1, *x.shape[2:])
        if self.kind == "fails":
            raise RuntimeError("broken")
        if self.kind == "eigh":
            x = torch.linalg.eigh(x.mT @ x)[1]
        return F.interpolate(x, size)


@dataclass(frozen=True)
class OddDecoder(bt.Decoder):
    kind: str

    def build(self, channels: Sequence[int], out_channels: int) -> nn.Module:
        return OddModule(channels[-1], self.kind)


class OddTask(Depth):
    """A depth whose activation looks at its values."""

    def activate(self, raw: Tensor) -> Tensor:
        return raw if raw.max() > 0 else -raw


class RoughTask(Depth):
    """A depth whose activation blows rounding up, so that float32 leaves two or three digits."""

    def activate(self, raw: Tensor) -> Tensor:
        return torch.sin(1e4 * raw)


class NeedsMask(Tokens):
    """Tokens that are called with a mask of them."""

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return self.two(self.one(self.tokens(images) * mask[..., None]))


def odd_model(kind: str) -> bt.MultiTaskModel:
    return bt.MultiTaskModel(
        Tokens(), [bt.Depth("b"), bt.Depth("c")], decoder=OddDecoder(kind), levels=["one", "two"], image_size=32
    )
