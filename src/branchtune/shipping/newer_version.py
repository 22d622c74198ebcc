"""What an error of a saved model says where a newer branchtune has saved it."""

from __future__ import annotations

import re
from typing import Any

from branchtune._version import __version__


def newer_version(saved: Any) -> str:
    """A clause to append to the error; "" unless `saved`, the version that saved the model, is newer than this one."""
    if not isinstance(saved, str) or _release(saved) <= _release(__version__):
        return ""
    return f" (saved by branchtune {saved}, this is {__version__}: update branchtune)"


def _release(version: str) -> tuple[int, ...]:
    """The leading numbers: "1.2.0rc1" -> (1, 2, 0)."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()
