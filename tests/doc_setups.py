"""Small stand-ins for what a page takes for granted: pretrained weights, a loader, the Hub."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

import branchtune as bt

SIZE = 32


def readme(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """One small random Swin in place of a pretrained one, a loader, a batch of images, and a Hub that is a folder."""
    sizes = {"embed_dim": 48, "depths": (1,) * 4, "num_heads": (1,) * 4, "window_size": 2, "img_size": SIZE}
    backbone = timm.create_model("swin_tiny_patch4_window7_224", pretrained=False, **sizes)
    load = bt.MultiTaskModel.from_pretrained

    def create(name: str, pretrained: bool = False) -> torch.nn.Module:
        assert timm.is_model(name)
        return backbone

    def push(model: bt.MultiTaskModel, repo_id: str, *, metrics: Any) -> None:
        model.save_pretrained(repo_id)

    def pull(path: str, *, revision: str | None = None) -> bt.MultiTaskModel:
        return load(path, backbone=backbone)

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(bt.MultiTaskModel, "push_to_hub", push)
    monkeypatch.setattr(bt.MultiTaskModel, "from_pretrained", staticmethod(pull))
    images = torch.rand(4, 3, SIZE, SIZE)
    normals = torch.nn.functional.normalize(torch.randn(4, 3, SIZE, SIZE), dim=1)
    batch = {
        "id": list("abcd"),
        "image": images,
        "semseg": torch.randint(40, (4, SIZE, SIZE)),
        "depth": torch.rand(4, SIZE, SIZE) + 1,
        "normals": normals,
        "edge": torch.randint(2, (4, SIZE, SIZE)).float(),
    }
    return {"loader": [batch, batch], "images": images, "metrics": {"depth": {"rmse": 0.5}}}


SETUPS = {"readme": readme}
