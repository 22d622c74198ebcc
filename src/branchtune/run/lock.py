"""One process at a time works in a run directory."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from branchtune.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock, which the system releases when the process ends in whatever way.

    The lock is one of the process: workers that it forks do not inherit it. Where the system or the file system has
    no such locks, nothing is locked.

    Raises:
        UserError: another process holds it, or the directory cannot be written.
    """
    if fcntl is None:
        yield
        return
    path = directory / NAME
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose a folder that you can write to") from error
    try:
        with suppress(OSError):  # a full disk: the name of the owner is a help only
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    """The descriptor of the locked file."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return descriptor
            owner = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise UserError(
                f"{path.parent}: {owner} is working on this run; wait for it, or choose another --name"
            ) from error
        # Its last owner removed the file between opening and locking: the next one would lock another file.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)
