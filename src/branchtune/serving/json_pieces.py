"""JSON in pieces: none takes long to make, and only one of them is in memory."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic_core import to_json

BYTES = 196_608  # of a piece; a multiple of 3, so that base64 of pieces is base64 of the whole
NUMBERS = 10_000  # that are written at a time: a few milliseconds, in which Python runs no other thread


@dataclass(frozen=True)
class Base64:
    """Bytes that are written as a string in base64."""

    data: bytes


def json_pieces(value: Any) -> Iterator[bytes]:
    """The text of dictionaries, `Base64`, arrays (nested lists) and what JSON has; what is not finite is null."""
    waiting: list[bytes] = []
    length = 0
    for part in _parts(value):
        waiting.append(part)
        length += len(part)
        if length >= BYTES:
            yield b"".join(waiting)
            waiting, length = [], 0
    yield b"".join(waiting)


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield b"{"
        for index, (key, item) in enumerate(value.items()):
            yield (b"," if index else b"") + to_json(key) + b":"
            yield from _parts(item)
        yield b"}"
    elif isinstance(value, Base64):
        yield b'"'
        for start in range(0, len(value.data), BYTES):
            yield b64encode(value.data[start : start + BYTES])
        yield b'"'
    elif isinstance(value, np.ndarray):
        yield from _nested(value)
    else:
        yield to_json(value, inf_nan_mode="null")


def _nested(array: NDArray[Any]) -> Iterator[bytes]:
    each = math.prod(array.shape[1:])
    rows = max(1, NUMBERS // max(1, each))
    yield b"["
    for top in range(0, len(array), rows):
        if top:
            yield b","
        if each > NUMBERS:
            yield from _nested(array[top])
        else:
            yield to_json(array[top : top + rows].tolist(), inf_nan_mode="null")[1:-1]
    yield b"]"
