"""Uploaded bytes -> pixels; what is no image, or too large a one, is refused before it is decoded."""

from __future__ import annotations

import io

import numpy as np
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from branchtune.data.decoding import DAMAGED, TOO_LARGE, as_rgb

# Pillow reads more, some of it with the help of other programs.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")


def read_upload(data: bytes, max_pixels: int) -> NDArray[np.uint8]:
    """Pixels `[H, W, 3]` of an image of any mode, turned as its EXIF data say; `branchtune predict` sees the same.

    Args:
        data: of a file of any name.
        max_pixels: the file's header is read first, and decides.

    Raises:
        HTTPException: 413 too many pixels, 415 no image, 422 a damaged one; with the reason in one line.
    """
    if not data:
        raise HTTPException(415, "the file is empty: send an image")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except TOO_LARGE as error:
        raise _too_large("more", max_pixels) from error
    except UnidentifiedImageError as error:
        raise HTTPException(415, f"this file is no image that can be read here: send {', '.join(FORMATS)}") from error
    except DAMAGED as error:
        raise _damaged(error) from error
    with image:
        width, height = image.size
        if width * height > max_pixels:
            raise _too_large(f"{width} x {height} = {_count(width * height)} pixels, more", max_pixels)
        try:
            image.load()
            return as_rgb(image, upright=True)
        except DAMAGED as error:
            raise _damaged(error) from error


def _too_large(found: str, max_pixels: int) -> HTTPException:
    limit = f"than the {_count(max_pixels)} pixels that this server takes"
    return HTTPException(413, f"the image has {found} {limit}: send a smaller one, or start it with --max_pixels")


def _count(pixels: int) -> str:
    return f"{pixels / 1e6:g} million" if pixels >= 1e6 else str(pixels)


def _damaged(error: BaseException) -> HTTPException:
    reason = " ".join(str(error).split()) or type(error).__name__
    return HTTPException(422, f"the image is damaged ({reason}): send another file")
