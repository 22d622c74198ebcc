"""Arrays and pictures as the bytes of files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor


def npy_bytes(value: Tensor) -> bytes:
    """A `.npy` file."""
    file = io.BytesIO()
    np.save(file, value.numpy())
    return file.getvalue()


def image_bytes(pixels: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """Pixels `[H, W, 3]` as a file.

    Args:
        kind: Pillow's name of the format, "PNG" or "JPEG".
        options: what Pillow writes it with.
    """
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()
