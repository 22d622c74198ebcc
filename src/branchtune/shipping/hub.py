"""A model's folder: a local one, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from branchtune.errors import UserError
from branchtune.shipping.files import FILES

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def local_folder(path: str | os.PathLike[str]) -> Path:
    """The folder at `path`, or the local copy of the Hub's repository of that name ("user/name").

    Raises:
        UserError: neither exists, or the repository cannot be downloaded.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"a model's folder is a path, got {path!r}: pass the folder that save_pretrained wrote")
    folder = Path(path)
    if folder.is_dir():
        return folder
    if folder.exists():
        raise UserError(f"{path} is a file: pass the folder that save_pretrained wrote")
    if folder.parent.is_dir() or not _REPOSITORY.fullmatch(os.fspath(path)):
        raise UserError(f"{path}: no such folder, pass the one that save_pretrained wrote")
    return _download(os.fspath(path))


def _download(repository: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES)))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{repository} is no folder here and cannot be downloaded from the Hugging Face Hub ({reason}): "
            "check the name and the connection, or pass a local folder"
        ) from error
