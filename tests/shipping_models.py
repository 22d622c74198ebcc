"""Small models to save and load: a Swin of four levels whose weights lie in a local file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import branchtune as bt
from branchtune.backbone.source import create_backbone

SWIN = "swin_tiny_patch4_window7_224"
SIZES: dict[str, Any] = {
    "img_size": 32,
    "embed_dim": 8,
    "depths": (1, 1, 1, 1),
    "num_heads": (1, 1, 1, 1),
    "window_size": 2,
}
TREE = bt.TaskTree([[["a", "b", "c"]], [["a", "b", "c"]], [["a", "b"], ["c"]], [["a"], ["b"], ["c"]]])


def tasks() -> list[bt.Task]:
    return [bt.Depth("a"), bt.Edges("b", positive_weight=0.9), bt.SemanticSegmentation("c", num_classes=3)]


def weights_file(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    path = folder / f"weights{seed}.safetensors"
    save_file(create_backbone(SWIN, pretrained=False, **SIZES).state_dict(), path)
    return path


def swin(folder: Path, seed: int = 0) -> nn.Module:
    return create_backbone(SWIN, checkpoint=weights_file(folder, seed), **SIZES)


def model_on(backbone: nn.Module, *, seed: int = 1, **arguments: Any) -> bt.MultiTaskModel:
    """Every trainable parameter and every buffer of the decoders away from its initial value."""
    defaults: dict[str, Any] = {"tree": TREE, "adapter": bt.LoRA(r=2), "decoder": bt.LightDecoder(dim=8, stride=8)}
    model = bt.MultiTaskModel(backbone, arguments.pop("tasks", tasks()), **{**defaults, **arguments})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        for name, buffer in model.decoders.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(torch.rand(buffer.shape, generator=generator))
    return model.eval()


def images(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def assert_same_outputs(model: bt.MultiTaskModel, other: bt.MultiTaskModel, size: int = 32) -> None:
    with torch.no_grad():
        x = images(size).to(next(model.parameters()).dtype)
        expected, found = model(x), other(x)
    assert list(expected) == list(found)
    for name in expected:
        assert torch.equal(expected[name], found[name]), name
