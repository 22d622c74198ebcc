"""Small stand-ins for what a page takes for granted: pretrained weights, a loader, the Hub, the tutorial's runs."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import branchtune as bt
from branchtune.cli.main import main
from doc_blocks import blocks

SIZE = 32
TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
# What makes a command of the pages short; the pages show full sizes.
SHORT = {
    "example-data": ["--train=4", "--val=2", "--new=1"],
    "fit": [
        *("--trainer.max_epochs=1", "--decoder_fit.steps=2", "--affinity.samples=4", "--data.batch_size=2"),
        *("--schedule.warmup_epochs=0", "--loggers=[]", "--trainer.accelerator=cpu"),
    ],
}


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


def tutorial(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What its reader has at the end of the tutorial: rooms, rooms.yaml, runs/first and a second run."""
    shutil.copytree(_tutorial(), Path.cwd(), dirs_exist_ok=True)
    return {}


@cache
def _tutorial() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = next(block.text for block in blocks(TUTORIAL) if block.title == "rooms.yaml")
    (folder / "rooms.yaml").write_text(config, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["example-data", "rooms", *SHORT["example-data"], "--quiet"]) == 0
        for name in ("first", "second"):
            assert main(["fit", "rooms.yaml", f"--name={name}", *SHORT["fit"], "--quiet"]) == 0
    return folder


SETUPS = {"readme": readme, "tutorial": tutorial}
