"""Pictures as data URIs, so small that the page keeps below its limit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

# Bytes of all pictures of a page in base64, however little else it has.
LIMIT = 3_800_000
# Longest side in pixels: the first that fits is taken.
SIDES = (288, 224, 176, 136, 104, 80, 56)
# Colours up to which a picture is stored without loss: maps of classes, masks, not values in grey.
FLAT = 64


class PictureWriter:
    """Encodes the pictures of one page, all with the same longest side.

    Args:
        pictures: all of them, `[H, W, 3]`.
        limit: of all together in base64, in bytes.

    Attributes:
        fits: whether they keep below the limit, at the smallest side at least.
        side: the longest one, in pixels.
        reduced: whether a picture has lost pixels to the limit, not to the largest side.
    """

    side: int

    def __init__(self, pictures: Sequence[Picture], limit: int = LIMIT) -> None:
        images = {id(picture): _image(picture) for picture in pictures}
        self.fits = False
        for self.side in SIDES:
            self._known: dict[int, str] = {}
            length = 0
            for key, image in images.items():
                self._known[key] = data_uri(image, self.side)
                length += len(self._known[key])
                if length > limit:
                    break
            else:
                self.fits = True
                break
        self.reduced = any(max(image.size) > self.side for image in images.values())

    def __call__(self, picture: Picture) -> str:
        return self._known[id(picture)]


def data_uri(image: Image.Image, side: int) -> str:
    """An image with a palette as PNG, any other as JPEG; of at most `side` pixels."""
    file, small = io.BytesIO(), _within(image, side)
    if image.mode == "P":
        small.save(file, "PNG", optimize=True)
    else:
        small.save(file, "JPEG", quality=82)
    kind = "png" if image.mode == "P" else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _image(picture: Picture) -> Image.Image:
    """With a palette where there are few colours; not larger than the largest side."""
    return _within(_flat_image(picture) or Image.fromarray(picture), SIDES[0])


def _within(image: Image.Image, side: int) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.NEAREST if image.mode == "P" else Image.Resampling.BOX)


def _flat_image(picture: Picture) -> Image.Image | None:
    """With a palette, where there are few enough colours."""
    codes = picture.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    if len(np.unique(codes[::8, ::8])) > FLAT:  # a photo, without sorting all of it
        return None
    colours, indices = np.unique(codes, return_inverse=True)
    if len(colours) > FLAT:
        return None
    image = Image.fromarray(indices.reshape(codes.shape).astype(np.uint8), "P")
    image.putpalette(np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1).astype(np.uint8).tobytes())
    return image
