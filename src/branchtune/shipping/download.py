"""A saved model's folder: a local one, or the copy of a repository of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from branchtune.errors import UserError
from branchtune.shipping.files import FILES

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Download:
    """How a repository is downloaded; the arguments are described at `load_pretrained`."""

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    force_download: bool = False

    def __call__(self, repository: str) -> Path:
        """The local copy of a saved model's files in the repository.

        Raises:
            UserError: there is none, and it cannot or must not be downloaded.
        """
        import huggingface_hub

        try:
            return Path(huggingface_hub.snapshot_download(repository, allow_patterns=list(FILES), **vars(self)))
        except Exception as error:
            if self.local_files_only:
                raise UserError(
                    f"{repository} is no folder here and was not downloaded before ({one_line(error)}): leave "
                    "local_files_only= out, or pass the cache_dir= that it was downloaded to"
                ) from error
            raise UserError(
                f"{repository} is no folder here and cannot be downloaded from the Hugging Face Hub "
                f"({one_line(error)}): check the name and the connection, or pass a local folder"
            ) from error


def local_folder(path: str | os.PathLike[str], download: Download) -> Path:
    """The folder at `path`, or the local copy of the Hub's repository of that name ("user/name").

    Raises:
        UserError: neither exists, a revision of a local folder is asked for, or the repository cannot be had.
    """
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"a model's folder is a path, got {path!r}: pass the folder that save_pretrained wrote")
    folder, revision = Path(path), download.revision
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"{path} is a local folder, which has no revision {revision!r}: leave revision= out")
        return folder
    if folder.exists():
        raise UserError(f"{path} is a file: pass the folder that save_pretrained wrote")
    if folder.parent.is_dir() or not _REPOSITORY.fullmatch(os.fspath(path)):
        raise UserError(f"{path}: no such folder, pass the one that save_pretrained wrote")
    return download(os.fspath(path))


def one_line(error: Exception) -> str:
    """The reason in an error's text, short enough for a message."""
    return " ".join(str(error).split())[:300] or type(error).__name__
