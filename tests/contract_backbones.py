"""The backbones that every contract test runs over, at a reduced size and at full size, with their numbers of sites."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import branchtune as bt
from branchtune.backbone.spec import BackboneSpec


class MaskedBlock(nn.Module):
    """Pre-norm attention whose keys are masked per image, then an MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        keep = None if mask is None else mask[:, None, :]
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v, attn_mask=keep))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


class MaskedNet(nn.Module):
    """A plain module without `feature_info`, called with a `[B, N]` mask of the tokens that may be looked at."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, 16)
        self.blocks = nn.ModuleList(MaskedBlock(dim) for _ in range(4))

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        for i, block in enumerate(self.blocks):
            x = block(x, mask) if i % 2 else block(x, mask=mask)
        return x


@dataclass(frozen=True)
class Contract:
    """One backbone of the contract.

    Attributes:
        name: of the contract, the id of its tests.
        model: timm's name; None for `MaskedNet`.
        reduced: constructor arguments of the reduced model.
        reduced_model: timm's name of the reduced model where the arguments cannot reduce it.
        reduced_size, full_size: height and width of the images in pixels.
        levels: as `trace_backbone` takes them.
        sites: default LoRA and Bottleneck sites of the reduced model.
        full_sites: the same of the full model.
    """

    name: str
    model: str | None
    sites: tuple[int, int]
    full_sites: tuple[int, int]
    reduced: dict[str, Any] = field(default_factory=dict)
    reduced_model: str | None = None
    reduced_size: tuple[int, int] = (64, 64)
    full_size: tuple[int, int] = (224, 224)
    full: dict[str, Any] = field(default_factory=dict)
    levels: Any = None
    dead: str | None = None

    def build(self, full: bool = False) -> nn.Module:
        """The model with random weights from a fixed seed, without weights from anywhere, in eval mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if self.model is None:
                return MaskedNet(dim=48 if full else 16).eval()
            name = self.model if full else self.reduced_model or self.model
            model = timm.create_model(name, num_classes=0, **(self.full if full else self.reduced))
            _disturb_norms(model)
            return model.eval()

    def size(self, full: bool = False) -> tuple[int, int]:
        return self.full_size if full else self.reduced_size

    def inputs(self, batch: int, full: bool = False) -> dict[str, Tensor]:
        """Further inputs of the backbone: every image hides other tokens."""
        if self.model is not None:
            return {}
        height, width = self.size(full)
        mask = torch.ones(batch, height * width // 256, dtype=torch.bool)
        for row in range(batch):
            mask[row, row::3] = False
        return {"mask": mask}

    def trace(self, backbone: nn.Module, full: bool = False) -> BackboneSpec:
        return bt.trace_backbone(backbone, self.levels, self.size(full), self.inputs(1, full) or None)

    def images(self, batch: int, dtype: torch.dtype = torch.float32, full: bool = False) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.randn(batch, 3, *self.size(full), generator=generator, dtype=torch.float64).to(dtype)


def _disturb_norms(model: nn.Module) -> None:
    """Norms as after some training: zero-initialised residual branches and mean 0 would hide mistakes."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)


SWIN = {"img_size": 64, "embed_dim": 16, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 2, 4), "window_size": 4}

CONTRACTS: Mapping[str, Contract] = {
    contract.name: contract
    for contract in [
        Contract("swin_tiny", "swin_tiny_patch4_window7_224", (24, 12), (48, 24), SWIN),
        Contract(
            "swin_tiny_after_merging",
            "swin_tiny_patch4_window7_224",
            (24, 12),
            (48, 24),
            SWIN,
            levels="after_merging",
        ),
        Contract(
            "swinv2_tiny",
            "swinv2_tiny_window8_256",
            (18, 12),
            (36, 24),
            SWIN,
            full_size=(256, 256),
            dead="layers.0.blocks.0.attn.qkv",
        ),
        Contract(
            "pvt_v2_b0",
            "pvt_v2_b0",
            (25, 10),
            (40, 16),
            {"embed_dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1), "num_heads": (1, 2, 2, 4)},
        ),
        Contract(
            "convnext_atto",
            "convnext_atto",
            (10, 5),
            (24, 12),
            {"dims": (8, 16, 24, 32), "depths": (1, 1, 2, 1)},
        ),
        Contract(
            "hiera_tiny",
            "hiera_tiny_224",
            (23, 10),
            (51, 24),
            {"img_size": 64, "embed_dim": 16, "stages": (1, 1, 2, 1)},
        ),
        Contract(
            "vit_tiny",
            "vit_tiny_patch16_224",
            (16, 8),
            (48, 24),
            {"img_size": 64, "embed_dim": 24, "depth": 4, "num_heads": 2},
        ),
        Contract(
            "deit_tiny",
            "deit_tiny_patch16_224",
            (20, 10),
            (48, 24),
            {"img_size": (48, 64), "embed_dim": 24, "depth": 5, "num_heads": 2},
            reduced_size=(48, 64),
            full_size=(192, 256),
            full={"img_size": (192, 256)},
        ),
        Contract(
            "resnet18",
            "resnet18",
            (14, 5),
            (19, 8),
            {"layers": (1, 1, 2, 1), "channels": (8, 16, 24, 32)},
        ),
        Contract(
            "mobilenetv4_conv_small",
            "mobilenetv4_conv_small",
            (27, 17),
            (27, 17),
            reduced_model="mobilenetv4_conv_small_050",
            reduced_size=(32, 32),
        ),
        Contract("efficientnet_lite0", "efficientnet_lite0", (30, 15), (30, 15), reduced_size=(32, 32)),
        Contract(
            "masked_net",
            None,
            (16, 4),
            (16, 4),
            levels=["blocks.0", "blocks.1", "blocks.2", "blocks.3"],
        ),
    ]
}


def traced(name: str, full: bool = False) -> tuple[nn.Module, BackboneSpec]:
    """A contract's backbone and its description, made once per test run; nothing may change them."""
    return _traced(name, full)


@cache
def _traced(name: str, full: bool) -> tuple[nn.Module, BackboneSpec]:
    backbone = CONTRACTS[name].build(full)
    return backbone, CONTRACTS[name].trace(backbone, full)


TASKS = ("a", "b", "c", "d")

TREES: Mapping[str, bt.TaskTree] = {
    "1124": bt.TaskTree([[TASKS], [TASKS], [["a", "b"], ["c", "d"]], [["a"], ["b"], ["c"], ["d"]]]),
    "interleaved": bt.TaskTree(
        [[TASKS], [["a", "d"], ["b", "c"]], [["a", "d"], ["b", "c"]], [["a"], ["d"], ["b", "c"]]]
    ),
    "from_level_0": bt.TaskTree([[["b", "d"], ["a", "c"]], *[[["b"], ["d"], ["a", "c"]]] * 2, [[t] for t in TASKS]]),
}


def four_tasks() -> list[bt.Task]:
    """Two dense tasks with a plain output, one that normalises it, and an image-level one."""
    return [
        bt.SemanticSegmentation("a", num_classes=3),
        bt.Depth("b"),
        bt.Normals("c"),
        bt.ImageClassification("d", num_classes=5),
    ]


def grow(
    name: str, tree: bt.TaskTree, adapter: bt.Adapter | None, full: bool = False, **options: Any
) -> bt.MultiTaskModel:
    """A model of the four tasks on a contract's backbone, in eval mode, with a small decoder."""
    backbone, spec = traced(name, full)
    backbone = options.pop("backbone", backbone)
    options = {"decoder": bt.LightDecoder(dim=16, stride=8), "spec": spec, **options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return bt.MultiTaskModel(backbone, four_tasks(), tree, adapter, **options).eval()


def randomise(model: bt.MultiTaskModel, scale: float = 0.2) -> bt.MultiTaskModel:
    """Random non-zero adapters, each of its own."""
    generator = torch.Generator().manual_seed(3)
    for parameter in model.backbone.adapters.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(scale * noise)
    return model


def weighted_sum(outputs: Mapping[str, Tensor]) -> Tensor:
    """A scalar on which every element of every output acts differently."""
    generator = torch.Generator().manual_seed(4)
    terms = []
    for name in sorted(outputs):
        output = outputs[name]
        weights = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
        terms.append((weights * output).sum() / output.numel() ** 0.5)
    return torch.stack(terms).sum()


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The largest difference relative to the largest magnitude of what is expected."""
    assert found.shape == expected.shape
    return float((found - expected).detach().abs().max() / expected.detach().abs().max())
