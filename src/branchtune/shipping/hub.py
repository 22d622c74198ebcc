"""A model's folder on the Hugging Face Hub: download one, upload one. Only the files of a saved model travel."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.shipping.files import FILES
from branchtune.shipping.save import save_pretrained

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(path: str | os.PathLike[str], revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder at `path`, or the local copy of the Hub's repository of that name ("user/name").

    Args:
        revision: branch, tag or commit of the repository.
        token: of the Hub, for a private repository; default: the one that `hf auth login` stored.

    Raises:
        UserError: neither exists, a revision of a local folder is asked for, or the repository cannot be downloaded.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"a model's folder is a path, got {path!r}: pass the folder that save_pretrained wrote")
    folder = Path(path)
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{path} is a local folder, which has no revision {revision!r}: leave revision= out")
        return folder
    if folder.exists():
        raise UserError(f"{path} is a file: pass the folder that save_pretrained wrote")
    if folder.parent.is_dir() or not _REPOSITORY.fullmatch(os.fspath(path)):
        raise UserError(f"{path}: no such folder, pass the one that save_pretrained wrote")
    return _download(os.fspath(path), revision, token)


def push_to_hub(
    model: MultiTaskModel,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    commit_message: str = "Upload model with branchtune",
    create_pr: bool = False,
    card: str | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
) -> str:
    """Save a model and upload its files (safetensors, JSON, card) in one commit; arguments as of huggingface_hub.

    Args:
        model: as of `save_pretrained`.
        repo_id: "user/name", or a name under the user of the token; made where it does not exist.
        private: of a repository that is made; default: as the user's settings say.
        token: of the Hub; default: the one that `hf auth login` stored.
        branch: to commit to; default: the main one.
        commit_message: of the commit.
        create_pr: open a pull request instead of committing.
        card: the text of README.md, see `save_pretrained`.
        metrics: by task, for the card.

    Returns:
        The address of the commit.

    Raises:
        UserError: the model cannot be saved (nothing is uploaded), no valid name, or the Hub cannot be reached or
            refuses.
    """
    import huggingface_hub

    if not isinstance(repo_id, str) or not re.fullmatch(r"([\w.-]+/)?[\w.-]+", repo_id):
        raise UserError(f"repo_id={repo_id!r} names no repository: pass 'user/name'")
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "model"
        save_pretrained(model, files, card=card, metrics=metrics, name=repo_id)
        api = huggingface_hub.HfApi(token=token)
        try:
            full = str(api.create_repo(repo_id, private=private, exist_ok=True).repo_id)
            if full != repo_id:
                save_pretrained(model, files, card=card, metrics=metrics, name=full)
            commit = api.upload_folder(
                repo_id=full,
                folder_path=files,
                commit_message=commit_message,
                revision=branch,
                create_pr=create_pr,
                allow_patterns=list(FILES),
            )
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"{repo_id} cannot be written on the Hugging Face Hub ({_reason(error)}): check the name, the "
                "connection and the login (hf auth login, or token=)"
            ) from error
    return str(commit.commit_url)


def _download(repository: str, revision: str | None, token: str | bool | None) -> Path:
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(repository, revision=revision, token=token, allow_patterns=list(FILES))
        )
    except Exception as error:
        raise UserError(
            f"{repository} is no folder here and cannot be downloaded from the Hugging Face Hub ({_reason(error)}): "
            "check the name and the connection, or pass a local folder"
        ) from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
