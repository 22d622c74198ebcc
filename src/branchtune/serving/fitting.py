"""Images to try, as small as the server takes them."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from branchtune.data.decoding import DAMAGED, TOO_LARGE, read_image
from branchtune.errors import UserError
from branchtune.pictures.encoding import image_bytes
from branchtune.serving.limits import Limits

HELD = 1_000_000  # pixels of an image that is kept in memory
FORM = 4_000  # bytes of a request beside its image: tasks, format, boundaries

Picture = NDArray[np.uint8]


def fitting_file(path: Path, kind: str, limits: Limits) -> Path | bytes:
    """The file itself where the server takes it, else a smaller one, turned as its EXIF data say.

    Args:
        path: an image; a damaged one is left to the server, which says so when it is tried.
        kind: Pillow's name of the format of a smaller one.
        limits: of the server.

    Raises:
        UserError: it has to be made smaller and cannot be.
    """
    return path if _taken(path, limits) else fitting_bytes(read_image(path, upright=True), kind, limits)


def fitting_bytes(pixels: Picture, kind: str, limits: Limits) -> bytes:
    """Pixels `[H, W, 3]` as a file that the server takes, of a million pixels at most.

    Args:
        pixels: of an image.
        kind: Pillow's name of the format.
        limits: of the server.

    Raises:
        UserError: a single pixel would be too long.
    """
    most = min(HELD, limits.max_pixels, pixels.shape[0] * pixels.shape[1])
    while most > 0:
        data = image_bytes(_within(pixels, most), kind)
        if len(data) + FORM <= limits.max_bytes:
            return data
        most //= 2
    raise UserError(f"max_bytes={limits.max_bytes} is less than any image takes: start the server with more")


def _taken(path: Path, limits: Limits) -> bool:
    try:
        if path.stat().st_size + FORM > limits.max_bytes:
            return False
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.width * image.height <= limits.max_pixels
    except TOO_LARGE:
        return False
    except DAMAGED:
        return True


def _within(pixels: Picture, most: int) -> Picture:
    height, width = pixels.shape[:2]
    scale = math.sqrt(most / (height * width))
    if scale >= 1:
        return pixels
    low = min(max(1, int(height * scale)), most)
    size = max(1, min(int(width * scale), most // low)), low
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
