"""Stand-ins for what a page takes for granted: the Hub, the tutorial's runs."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import branchtune as bt
from branchtune.cli.main import main
from branchtune.training.train import EXPECTED_WARNINGS
from doc_blocks import blocks

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.md"
# What makes a command of the pages short; the pages show full sizes.
TRAINING = [
    *("--trainer.max_epochs=1", "--decoder_fit.steps=2", "--affinity.samples=4", "--data.batch_size=2"),
    *("--schedule.warmup_epochs=0", "--loggers=[]", "--trainer.accelerator=cpu"),
]
SHORT = {"example-data": ["--train=4", "--val=2", "--new=1"], "fit": TRAINING, "reference": TRAINING}


def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A Hub that is a folder."""
    load = bt.MultiTaskModel.from_pretrained

    def push(model: bt.MultiTaskModel, repo_id: str, *, metrics: Any) -> None:
        model.save_pretrained(repo_id)

    def pull(path: str, *, revision: str | None = None) -> bt.MultiTaskModel:
        return load(path)

    monkeypatch.setattr(bt.MultiTaskModel, "push_to_hub", push)
    monkeypatch.setattr(bt.MultiTaskModel, "from_pretrained", staticmethod(pull))
    return {}


def lightning(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """No error where Lightning warns of what a short example does."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    return {}


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


SETUPS = {"hub": hub, "lightning": lightning, "tutorial": tutorial}
