"""Image and label files -> arrays, with errors that name the file."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from branchtune.errors import UserError

# What Pillow and numpy raise where bytes are damaged.
DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
# How an image that was turned upright is turned back, by what its EXIF data say.
_BACK = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def read_image(path: Path, *, upright: bool = False) -> np.ndarray:
    """An image file of any mode -> uint8 `[H, W, 3]`, a copy.

    Args:
        upright: turned as the file's EXIF data say, which the files of labels do not follow.
    """
    image = _open(path, as_stored=not upright)
    try:
        return as_rgb(image, upright=upright)
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def as_rgb(image: Image.Image, *, upright: bool = False) -> np.ndarray:
    """An opened image -> uint8 `[H, W, 3]`, a copy; 16 bits a pixel become 8, transparency is dropped.

    Raises:
        ValueError: 32 bits a pixel, whose black and white nothing tells.
    """
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # of older Pillows
    if image.mode in ("I", "F") and not deep:
        kind = "floats" if image.mode == "F" else "whole numbers"
        raise ValueError(f"32 bits a pixel, {kind} of an unknown range: save it with 8 or 16")
    if upright:
        image = ImageOps.exif_transpose(image)
    if deep:  # Pillow would clip
        grey = np.asarray(image).astype(np.float32) / 257
        return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)
    if isinstance(image.info.get("transparency"), bytes):  # a value per colour, about which Pillow would warn
        image = image.convert("RGBA")
    return np.array(image.convert("RGB"))


def read_label_image(path: Path) -> np.ndarray:
    """A grey or palette image with 8 bits a pixel -> its values (palette indices), uint8 `[H, W]`, a copy."""
    image = _open(path)
    if image.mode not in ("L", "P"):
        raise UserError(f"{path}: image mode is {image.mode}, expected a grey or palette image with 8 bits a pixel")
    return np.array(image)


def read_values_image(path: Path) -> np.ndarray:
    """An image file that holds values: grey of 8, 16 or 32 bits or palette `[H, W]`, or RGB `[H, W, 3]`, a copy."""
    image = _open(path)
    if image.mode not in ("L", "P", "I", "I;16", "I;16B", "F", "RGB"):
        raise UserError(f"{path}: image mode is {image.mode}, expected grey, palette or RGB")
    return np.array(image)


def read_colour_image(path: Path) -> np.ndarray:
    """An RGB image with 8 bits a channel that holds values rather than a picture -> uint8 `[H, W, 3]`, a copy."""
    image = _open(path)
    if image.mode != "RGB":
        raise UserError(f"{path}: image mode is {image.mode}, expected RGB with 8 bits a channel")
    return np.array(image)


def read_mat(path: Path, name: str) -> np.ndarray:
    """One variable of a MATLAB file (version 7 or older); structures are numpy records."""
    from scipy.io import loadmat

    try:
        with path.open("rb") as file:
            content = loadmat(file, variable_names=[name], mat_dtype=False)
    except Exception as error:  # scipy's readers raise whatever a damaged byte leads to
        raise _unreadable(path, error) from error
    if name not in content:
        raise UserError(f"{path}: holds no variable {name!r}, restore it or take its id out of the split")
    return content[name]


def read_array(path: Path) -> np.ndarray:
    """A `.npy` file; nothing is unpickled."""
    try:
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def read_floats(path: Path, expected: str, ndim: int) -> np.ndarray:
    """A `.npy` file of floats with `ndim` dimensions -> float32; `expected` says the shape in the error."""
    values = read_array(path)
    if values.ndim != ndim or values.dtype.kind != "f":
        raise UserError(f"{path}: {values.dtype} {list(values.shape)}, expected floats {expected}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False)


def _open(path: Path, as_stored: bool = True) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            opened = Image.open(path)
        with opened as image:
            if image.format == "TIFF":
                return _load_tiff(image, as_stored)
            image.load()
            return image
    except TOO_LARGE as error:
        most = (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(
            f"{path}: more than {most:.0f} million pixels are not read: make it smaller or leave it out"
        ) from error
    except DAMAGED as error:
        raise _unreadable(path, error) from error


def _load_tiff(image: ImageFile.ImageFile, as_stored: bool) -> Image.Image:
    """Pillow turns a TIFF, and no other image, as its EXIF data say while it loads it."""
    turned = image.getexif().get(ExifTags.Base.Orientation)
    image.filename = ""  # of a file that it maps into memory, Pillow (13) mixes up height and width
    image.load()
    return image.transpose(_BACK[turned]) if as_stored and turned in _BACK else image


def _unreadable(path: Path, error: BaseException) -> UserError:
    if not path.exists():
        return UserError(f"{path}: no such file")
    return undecodable(path, error)


def undecodable(where: object, error: BaseException) -> UserError:
    """What to raise about damaged bytes."""
    unknown = isinstance(error, UnidentifiedImageError)  # whose text repeats the path, or an address in memory
    reason = "no known image format" if unknown else " ".join(str(error).split()) or type(error).__name__
    return UserError(f"{where}: cannot be decoded ({reason}), restore it or leave it out")
