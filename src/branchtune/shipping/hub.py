"""A saved model's files to the Hugging Face Hub, in one commit."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchtune.errors import UserError
from branchtune.model import MultiTaskModel
from branchtune.shipping.download import one_line
from branchtune.shipping.files import FILES
from branchtune.shipping.save import save_pretrained


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

    _check_name(repo_id)
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
                f"{repo_id} cannot be written on the Hugging Face Hub ({one_line(error)}): check the name, the "
                "connection and the login (hf auth login, or token=)"
            ) from error
    return str(commit.commit_url)


def save_and_push(
    model: MultiTaskModel,
    save_directory: str | os.PathLike[str],
    repo_id: str | None = None,
    *,
    card: str | None = None,
    metrics: Mapping[str, Mapping[str, float]] | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> str:
    """`save_pretrained(save_directory, push_to_hub=True)` of a model: its folder, and then the same on the Hub.

    Args:
        model: as of `save_pretrained`.
        save_directory: likewise.
        repo_id: as of `push_to_hub`; default: the name of the folder.
        card: the text of README.md in both places, see `save_pretrained`.
        metrics: by task, for the card.
        name: by which the card in the folder loads the model; that on the Hub does so by the repository's name.
        kwargs: further arguments of `push_to_hub`.

    Returns:
        The address of the commit.

    Raises:
        UserError: as of these two. A wrong name is refused before anything is written; if the Hub fails, the folder is
            complete.
    """
    if repo_id is None:
        repo_id = Path(save_directory).resolve().name
    _check_name(repo_id)
    inspect.signature(push_to_hub).bind(model, repo_id, **kwargs)  # a wrong argument is found before files are written
    save_pretrained(model, save_directory, card=card, metrics=metrics, name=name)
    return push_to_hub(model, repo_id, card=card, metrics=metrics, **kwargs)


def _check_name(repo_id: Any) -> None:
    if not isinstance(repo_id, str) or not re.fullmatch(r"([\w.-]+/)?[\w.-]+", repo_id):
        raise UserError(f"repo_id={repo_id!r} names no repository: pass 'user/name'")
