"""Where an export goes: checked before the work begins."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from branchtune.errors import UserError


def check_output(path: str | os.PathLike[str], overwrite: bool, *, file: bool = False) -> Path:
    """Refuse a path that is taken or cannot be written to, so that nobody learns it after minutes of tracing.

    Args:
        overwrite: whether the path may be taken.
        file: it is not to be a folder.

    Raises:
        UserError: it exists and `overwrite` is not set, it is a folder, or its own folder is read-only.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise UserError(f"{path} exists: choose another path, or replace it with overwrite (--overwrite)")
    if file and path.is_dir():
        raise UserError(f"{path} is a folder: give the name of a file")
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return path
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you can write to") from error
