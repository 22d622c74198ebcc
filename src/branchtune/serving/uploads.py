"""The uploaded file of a request -> what the model takes, and what the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from branchtune.pictures.encoding import image_bytes
from branchtune.run.inference import prepared
from branchtune.serving.asked import Asked
from branchtune.serving.json_pieces import Base64
from branchtune.serving.lengths import check_length
from branchtune.serving.reading import read_upload
from branchtune.serving.served import Served

JPEG_SIDE = 65_500  # pixels, the most that Pillow writes


@dataclass(frozen=True)
class Upload:
    """What is kept of an uploaded image while its request waits.

    Args:
        image: `[3, h, w]`, prepared by the model's transform.
        size: height and width of the uploaded image.
        seen: its pixels as the model was given them, JPEG or PNG, where pictures are asked for.
    """

    image: Tensor
    size: tuple[int, int]
    seen: Base64 | None


def open_upload(file: BinaryIO, served: Served, asked: Asked, max_pixels: int) -> Upload:
    """Read, decode and prepare an image.

    Raises:
        HTTPException: no image, a damaged one, too large a one, or the answer would be too long.
    """
    pixels = read_upload(file.read(), max_pixels)
    size = (pixels.shape[0], pixels.shape[1])
    if asked.format != "png":
        check_length([served.model.tasks[name] for name in asked.tasks], size, asked.format, asked.scores)
    seen = Base64(_seen(pixels)) if asked.format == "png" else None
    return Upload(prepared(pixels, served.transform), size, seen)


def _seen(pixels: NDArray[np.uint8]) -> bytes:
    if max(pixels.shape) > JPEG_SIDE:
        return image_bytes(pixels, "PNG")
    return image_bytes(pixels, "JPEG", quality=90)
