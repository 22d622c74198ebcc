"""`from_pretrained("user/name")` reads a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import branchtune as bt
from branchtune.errors import UserError
from branchtune.shipping.files import FILES
from shipping_models import assert_same_outputs, model_on, swin


def test_a_repository_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = swin(tmp_path)
    model = model_on(backbone)
    model.save_pretrained(tmp_path / "copy")

    def download(repository: str, allow_patterns: list[str]) -> str:
        assert repository == "somebody/scenes-tree"
        assert allow_patterns == list(FILES)
        return os.fspath(tmp_path / "copy")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained("somebody/scenes-tree", backbone=backbone))


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise ConnectionError("Name or service\nnot known")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    message = (
        r"somebody/scenes-tree is no folder here and cannot be downloaded from the Hugging Face Hub \(Name or service "
        r"not known\): check the name and the connection, or pass a local folder"
    )
    with pytest.raises(UserError, match=message):
        bt.MultiTaskModel.from_pretrained("somebody/scenes-tree")


def test_a_local_path_never_asks_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for path in ("runs/model", "model", "runs/first/model", tmp_path / "a" / "b", "./a/b c"):
        with pytest.raises(UserError, match="no such folder"):
            bt.MultiTaskModel.from_pretrained(path)
