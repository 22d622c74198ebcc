"""Models on the Hugging Face Hub: `push_to_hub`, `from_pretrained("user/name")`, and the card; without the network."""

from __future__ import annotations

import inspect
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import timm
from huggingface_hub import ModelCard, ModelHubMixin

import branchtune as bt
from branchtune.backbone.source import BackboneSource, create_backbone
from branchtune.errors import UserError
from branchtune.shipping.card import model_card
from branchtune.shipping.config import ModelConfig
from branchtune.shipping.files import FILES
from branchtune.shipping.hub import push_to_hub, save_and_push
from branchtune.shipping.load import load_pretrained
from shipping_models import assert_same_outputs, model_on, swin


def test_a_repository_is_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = swin(tmp_path)
    model = model_on(backbone)
    model.save_pretrained(tmp_path / "copy")

    asked: dict[str, Any] = {"revision": "v1", "token": "secret", "cache_dir": tmp_path, "force_download": True}

    def download(repository: str, allow_patterns: list[str], **options: Any) -> str:
        assert repository == "somebody/scenes-tree"
        assert options == {**asked, "local_files_only": False}
        assert allow_patterns == list(FILES)
        return os.fspath(tmp_path / "copy")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = bt.MultiTaskModel.from_pretrained("somebody/scenes-tree", backbone=backbone, **asked)
    assert_same_outputs(model, found)
    with pytest.raises(UserError, match=r"copy is a local folder, which has no revision 'v1': leave revision= out"):
        bt.MultiTaskModel.from_pretrained(tmp_path / "copy", backbone=backbone, revision="v1")


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


def in_cache(cache: Path, repository: str, folder: Path) -> None:
    """Put a folder where the Hub's client keeps the main branch of a repository that it has downloaded."""
    place, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)


def test_what_was_downloaded_before_needs_no_network(tmp_path: Path) -> None:
    """The Hub's own client, which asks no network with local_files_only."""
    backbone = swin(tmp_path)
    model = model_on(backbone)
    model.save_pretrained(tmp_path / "copy")
    in_cache(tmp_path / "cache", "somebody/tree", tmp_path / "copy")
    options: dict[str, Any] = {"backbone": backbone, "cache_dir": tmp_path / "cache", "local_files_only": True}
    assert_same_outputs(model, bt.MultiTaskModel.from_pretrained("somebody/tree", **options))
    message = r"^somebody/other is no folder here and was not downloaded before \(.*\): leave local_files_only= out, or"
    with pytest.raises(UserError, match=message):
        bt.MultiTaskModel.from_pretrained("somebody/other", **options)


@pytest.mark.parametrize(
    ("function", "of_the_mixin"),
    [
        (save_and_push, "save_pretrained"),
        (push_to_hub, "push_to_hub"),
        (load_pretrained, "from_pretrained"),
        (bt.MultiTaskModel.from_pretrained, "from_pretrained"),
    ],
)
def test_the_arguments_are_those_of_the_hubs_mixin(function: Callable[..., Any], of_the_mixin: str) -> None:
    """But for its own config and card, patterns of files, and what the first one is called where peers disagree."""
    theirs = set(inspect.signature(getattr(ModelHubMixin, of_the_mixin)).parameters)
    theirs -= {"self", "config", "push_to_hub", "model_card_kwargs", "push_to_hub_kwargs", "model_kwargs"}
    theirs -= {"pretrained_model_name_or_path", "allow_patterns", "ignore_patterns", "delete_patterns"}
    assert theirs <= set(inspect.signature(function).parameters)


def test_a_local_path_never_asks_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for path in ("runs/model", "model", "runs/first/model", tmp_path / "a" / "b", "./a/b c"):
        with pytest.raises(UserError, match="no such folder"):
            bt.MultiTaskModel.from_pretrained(path)


class Hub:
    """What the tests need of `HfApi`: repositories are folders."""

    def __init__(self, folder: Path, user: str = "somebody") -> None:
        self.folder, self.user, self.calls = folder, user, []

    def __call__(self, token: str | None = None) -> Hub:
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id: str, private: bool | None, exist_ok: bool) -> Any:
        full = repo_id if "/" in repo_id else f"{self.user}/{repo_id}"
        self.calls.append(("create", full, private, exist_ok))
        return SimpleNamespace(repo_id=full)

    def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: list[str], **options: Any) -> Any:
        self.calls.append(("upload", repo_id, sorted(file.name for file in folder_path.iterdir()), options))
        assert sorted(allow_patterns) == sorted(FILES)
        shutil.copytree(folder_path, self.folder / repo_id)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(self, repo_id: str, **_: Any) -> str:
        return os.fspath(self.folder / repo_id)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.download)
    return hub


def python_block(card: str) -> str:
    return card.partition("```python\n")[2].partition("```")[0]


def test_a_model_is_pushed_and_its_card_loads_it(tmp_path: Path, hub: Hub) -> None:
    backbone = create_backbone("scenes_swin")
    model = model_on(backbone)
    metrics = {"c": {"pixels": 0.5, "miou": 0.1234567, "loss": 3.0}, "a": {"rmse": 0.7, "abs_rel": float("nan")}}
    options = {"private": True, "token": "secret", "branch": "dev", "create_pr": True, "metrics": metrics}
    assert model.push_to_hub("tree", **options) == "https://hub/somebody/tree/commit/1"
    uploaded = {"commit_message": "Upload model with branchtune", "revision": "dev", "create_pr": True}
    assert hub.calls == [
        ("token", "secret"),
        ("create", "somebody/tree", True, True),
        ("upload", "somebody/tree", sorted(FILES), uploaded),
    ]
    card = (hub.folder / "somebody" / "tree" / "README.md").read_text()
    assert "| c | miou | 0.1235 |\n| c | pixels | 0.5 |\n| a | rmse | 0.7 |\n" in card
    names: dict[str, Any] = {}
    exec(python_block(card), names)
    assert_same_outputs(model, names["model"], 128)
    assert list(names["outputs"]["a"].shape) == [1, 1, 128, 128]
    assert '{"a": [1, 1, 128, 128], ...}' in card
    assert "base_model" not in card


def test_a_folder_is_saved_and_pushed(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_on(create_backbone("scenes_swin"))
    monkeypatch.chdir(tmp_path)
    assert model.save_pretrained("tree", push_to_hub=True, private=True) == "https://hub/somebody/tree/commit/1"
    local, uploaded = tmp_path / "tree", hub.folder / "somebody" / "tree"
    for name in FILES:
        same = (local / name).read_bytes() == (uploaded / name).read_bytes()
        assert same == (name != "README.md"), name
    assert 'from_pretrained("tree")' in (local / "README.md").read_text()
    assert 'from_pretrained("somebody/tree")' in (uploaded / "README.md").read_text()
    model.save_pretrained("tree", push_to_hub=True, repo_id="team/other")
    assert (hub.folder / "team" / "other").is_dir()
    assert model.save_pretrained("tree") is None


def test_what_cannot_be_pushed_is_not_saved(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """But a folder is complete that the Hub alone refuses."""
    model = model_on(swin(tmp_path))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"^repo_id='a/b' is where to upload to: pass push_to_hub=True as well$"):
        model.save_pretrained(tmp_path / "out", repo_id="a/b")
    with pytest.raises(UserError, match=r"^repo_id='a b' names no repository: pass 'user/name'$"):
        model.save_pretrained(tmp_path / "a b", push_to_hub=True)
    wrong: list[dict[str, Any]] = [{"push_to_hub": True, "privat": True}, {"private": True}]
    for options in wrong:
        with pytest.raises(TypeError, match="unexpected keyword argument 'privat"):
            model.save_pretrained(tmp_path / "out", **options)
    assert not hub.calls
    assert sorted(tmp_path.iterdir()) == before

    def refuses(*_: Any, **__: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "create_repo", refuses)
    with pytest.raises(UserError, match=r"^out cannot be written on the Hugging Face Hub \(no route\)"):
        model.save_pretrained(tmp_path / "out", push_to_hub=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


def test_the_card_of_a_folder_loads_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_on(swin(tmp_path))
    model.save_pretrained(tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(python_block((tmp_path / "out" / "README.md").read_text()), names)
    assert_same_outputs(model, names["model"])
    assert set(names["outputs"]) == {"a", "b", "c"}


def test_a_model_that_cannot_be_pushed(tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_on(swin(tmp_path))
    for name in ("a/b/c", "", "a b", None):
        with pytest.raises(UserError, match="names no repository: pass 'user/name'"):
            model.push_to_hub(name)  # type: ignore[arg-type]
    assert not hub.calls

    def refuses(*_: Any, **__: Any) -> Any:
        raise ConnectionError("401 Client Error\nUnauthorized")

    monkeypatch.setattr(hub, "create_repo", refuses)
    message = r"^somebody/tree cannot be written on the Hugging Face Hub \(401 Client Error Unauthorized\): check"
    with pytest.raises(UserError, match=message):
        model.push_to_hub("somebody/tree")
    assert not hub.folder.exists()


def test_a_repository_of_pickles_is_refused(hub: Hub) -> None:
    folder = hub.folder / "somebody" / "pickles"
    folder.mkdir(parents=True)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"holds no adapter_config.json"):
        bt.MultiTaskModel.from_pretrained("somebody/pickles")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (BackboneSource("test_vit", tag="r160_in1k"), "timm/test_vit.r160_in1k"),
        (BackboneSource("hf-hub:timm/test_vit.r160_in1k@main"), "timm/test_vit.r160_in1k"),
        (BackboneSource("local-dir:/weights"), None),
        (BackboneSource("test_vit", pretrained=False), None),
        (None, None),
    ],
)
def test_the_base_model_is_named_where_it_is_known(source: BackboneSource | None, expected: str | None) -> None:
    backbone = timm.create_model("test_vit", pretrained=False, num_classes=0, img_size=32)
    backbone.branchtune_source = source
    model = bt.MultiTaskModel(backbone, [bt.Depth("a")], image_size=32)
    card = ModelCard(model_card(model, ModelConfig.of(model, {}), "out"))
    assert card.data.base_model == expected
