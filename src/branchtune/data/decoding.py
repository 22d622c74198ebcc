"""Image and label files -> arrays, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from branchtune.errors import UserError

_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


def read_image(path: Path) -> np.ndarray:
    """An image file of any mode -> uint8 `[H, W, 3]`, a copy."""
    return np.array(_open(path).convert("RGB"))


def read_label_image(path: Path) -> np.ndarray:
    """A grey or palette image with 8 bits a pixel -> its values (palette indices), uint8 `[H, W]`, a copy."""
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise UserError(f"{path}: image mode is {image.mode}, expected a grey or palette image with 8 bits a pixel")
    return np.array(image)


def read_array(path: Path) -> np.ndarray:
    """A `.npy` file; nothing is unpickled."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except _DAMAGED as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> UserError:
    if not path.exists():
        return UserError(f"{path}: no such file")
    reason = " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{path}: cannot be decoded ({reason}), restore it or take its id out of the split")
