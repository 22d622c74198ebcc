"""Files and folders that appear whole or not at all, whatever interrupts the writing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from branchtune.errors import UserError

_ADVICE = {
    errno.ENOSPC: "free some space there or choose another folder",
    errno.EDQUOT: "free some space there or choose another folder",
    errno.ENAMETOOLONG: "give it a shorter name",
    errno.EFBIG: "raise the limit on file sizes or choose another disk",
}
_TEMPORARY = re.compile(r"\.(.+)\.(\d+)\.[0-9a-f]{8}\.partial")
_searched: set[Path] = set()
_TORCH_WRITE_FAILURES = ("inline_container", "PytorchStreamWriter")


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` in UTF-8; a reader sees the old file or the new one, nothing in between.

    Raises:
        UserError: the file cannot be written; the old one, if any, is intact. So for all functions of this module.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write `data` as indented JSON.

    Raises:
        TypeError, ValueError: JSON cannot hold the data (NaN and infinities included); nothing is written.
    """
    write_text(path, json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` as it is."""
    with replace_file(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; what was written there becomes `path` when the block ends well.

    Missing parent folders are made. The temporary file is removed when the block raises; one that a killed process
    left behind is removed by the next writer of the same path. The block's OSErrors are taken for failures to write
    `path`, but for those inside `other_work`.
    """
    path = Path(path).resolve()
    with _report(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def replace_directory(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new, empty folder beside `path` that becomes `path` when the block ends well.

    What `path` held before is moved aside then, and removed last; where a process was killed between the two, the
    next call puts it back first.
    """
    path = Path(path).resolve()
    old = path.with_name(f".{path.name}.old")
    with _report(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_dir():
            raise UserError(f"cannot write the folder {path}: a file has that name, choose another one")
        mounted = os.path.ismount(path)
        if mounted or Path.cwd().is_relative_to(path):
            what = "is a mount point" if mounted else "is, or holds, the current folder"
            raise UserError(
                f"{path} {what}, and cannot be replaced as a whole: choose another folder, or one inside it"
            )
        _recover(path, old)
        temporary = _temporary(path)
        try:
            temporary.mkdir()
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                os.replace(path, old)
            try:
                os.replace(temporary, path)
            except OSError:
                _recover(path, old)
                raise
            _sync_folder(path.parent)
            shutil.rmtree(old, ignore_errors=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def many_files(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Around writing many files to an existing folder: what killed processes left there is removed once, at the start.

    Every single write would otherwise look through all files that are there already.
    """
    folder = Path(folder).resolve()
    _remove_left(folder)
    _searched.add(folder)
    try:
        yield
    finally:
        _searched.discard(folder)


class _Other(Exception):
    """Carries what `other_work` raised past `_report`."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


@contextmanager
def other_work() -> Iterator[None]:
    """Inside a block that writes: what does something else, such as calling a user's code.

    What it raises comes out of `replace_file` and `replace_directory` as it is.
    """
    try:
        yield
    except Exception as error:
        raise _Other(error) from error


def _recover(path: Path, old: Path) -> None:
    """Undo or finish what a killed process left half done: `old` is the only copy while `path` does not exist."""
    if old.exists() and not path.exists():
        os.replace(old, path)
    shutil.rmtree(old, ignore_errors=True)


def _temporary(path: Path) -> Path:
    """A name of this process's own in the same folder; those of dead processes are removed on the way."""
    if path.parent not in _searched:
        _remove_left(path.parent, path.name)
    return path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.partial")


def _remove_left(folder: Path, name: str | None = None) -> None:
    """Temporary files of dead processes for the file of this name, or for any."""
    for left in folder.iterdir():
        found = _TEMPORARY.fullmatch(left.name)
        if found and name in (None, found[1]) and not _alive(int(found[2])):
            _remove(left)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    if os.name == "nt":
        return True  # signal 0 is Ctrl-C there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Not every file system lets a folder be synchronised, and the rename has happened either way.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _report(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except _Other as other:
        raise other.error from other.error.__cause__
    except Exception as error:
        number = _error_number(error)
        if number is None:
            raise
        advice = _ADVICE.get(number, "choose a folder that you can write to")
        raise UserError(f"cannot write {path}: {os.strerror(number)}; {advice}") from error


def _error_number(error: Exception) -> int | None:
    """The system's number of a failed write, as Python, safetensors (Rust) and torch report it."""
    if isinstance(error, OSError):
        return error.errno or errno.EIO
    from_rust = re.search(r"\(os error (\d+)\)", str(error))
    if from_rust:
        return int(from_rust[1])
    # torch.save counts the bytes that the disk took, and does not say why they were too few.
    return errno.ENOSPC if any(word in str(error) for word in _TORCH_WRITE_FAILURES) else None
