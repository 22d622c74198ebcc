"""Uploads: what is no image, or too large a one, is refused at once; all others are read as `predict` reads them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from PIL import Image

from branchtune.data.decoding import read_image, read_values_image
from branchtune.errors import UserError
from branchtune.serving.reading import read_upload
from served_model import encoded, pixels, png_header


def refusal(data: bytes, max_pixels: int = 16_000_000) -> tuple[int, str]:
    with pytest.raises(HTTPException) as raised:
        read_upload(data, max_pixels)
    assert "\n" not in raised.value.detail
    return raised.value.status_code, raised.value.detail


@pytest.mark.parametrize("size", [(5000, 5000), (10_000, 10_000), (20_000, 10_000), (60_000, 60_000)])
def test_a_large_image_is_refused_by_its_header(size: tuple[int, int]) -> None:
    data = png_header(*size)
    begin = time.perf_counter()
    status, detail = refusal(data)
    assert time.perf_counter() - begin < 0.5  # on a busy machine; decoding takes seconds
    assert status == 413
    assert "than the 16 million pixels that this server takes: send a smaller one" in detail


def test_the_size_is_named() -> None:
    assert refusal(encoded(pixels(20, 30)), 500) == (
        413,
        "the image has 30 x 20 = 600 pixels, more than the 500 pixels that this server takes: send a smaller one, or "
        "start it with --max_pixels",
    )
    assert read_upload(encoded(pixels(20, 30)), 600).shape == (20, 30, 3)


@pytest.mark.parametrize("data", [b"hello, this is a text\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\x00" * 100])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    status, detail = refusal(data)
    assert status == 415
    assert detail == "this file is no image that can be read here: send JPEG, PNG, WEBP, TIFF, BMP"


def test_an_empty_file_is_refused() -> None:
    assert refusal(b"")[0] == 415


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_damaged_image_is_refused(kind: str) -> None:
    data = encoded(pixels(64, 64), kind)
    status, detail = refusal(data[: len(data) // 2])
    assert status == 422
    assert detail.startswith("the image is damaged (")


def _turned() -> dict[str, Any]:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    return {"exif": exif}


CASES: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
    "rgb.png": (Image.fromarray(pixels()), "PNG", {}),
    "turned.png": (Image.fromarray(pixels()), "PNG", _turned()),
    "grey.png": (Image.fromarray(pixels()[..., 0]), "PNG", {}),
    "deep.png": (Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257), "PNG", {}),
    "alpha.png": (Image.fromarray(pixels()).convert("RGBA"), "PNG", {}),
    "palette.png": (Image.fromarray(pixels()).quantize(8), "PNG", {"transparency": b"\x00\x80\xff"}),
    "cmyk.jpg": (Image.fromarray(pixels()).convert("CMYK"), "JPEG", {}),
    "picture.webp": (Image.fromarray(pixels()), "WEBP", {}),
    "picture.tif": (Image.fromarray(pixels()), "TIFF", {}),
}


@pytest.mark.parametrize("name", CASES)
def test_every_mode_is_read_as_predict_reads_it(name: str, tmp_path: Path) -> None:
    image, kind, options = CASES[name]
    (tmp_path / name).write_bytes(data := encoded(image, kind, **options))
    found = read_upload(data, 10_000)
    assert found.dtype == np.uint8
    assert found.shape == ((40, 24, 3) if name == "turned.png" else (24, 40, 3))
    np.testing.assert_array_equal(found, read_image(tmp_path / name, upright=True))


def test_known_pixels() -> None:
    def read(name: str) -> np.ndarray:
        image, kind, options = CASES[name]
        return read_upload(encoded(image, kind, **options), 10_000)

    grey = np.repeat(pixels()[..., :1], 3, axis=2)
    np.testing.assert_array_equal(read("turned.png"), np.rot90(pixels(), -1))
    np.testing.assert_array_equal(read("deep.png"), grey)
    np.testing.assert_array_equal(read("grey.png"), grey)
    np.testing.assert_array_equal(read("alpha.png"), pixels())


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_range_that_nothing_tells_is_refused(dtype: Any, tmp_path: Path) -> None:
    values = (pixels()[..., 0] / 255 if dtype == np.float32 else pixels()[..., 0]).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(
        UserError, match=r"a.tif: cannot be decoded \(32 bits a pixel, .* range: save it with 8 or 16\)"
    ):
        read_image(tmp_path / "a.tif")
    status, detail = refusal((tmp_path / "a.tif").read_bytes())
    assert status == 422
    assert "32 bits a pixel" in detail


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(16, 16), (12, 20)])
def test_a_turned_tiff_is_read_as_stored_where_labels_lie_on_it(
    tmp_path: Path, size: tuple[int, int], orientation: int
) -> None:
    """Pillow turns it as it loads it, and no other format."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = pixels(*size)
    Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), stored)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.tif", upright=True), read_image(tmp_path / "a.png", upright=True)
    )
    for label in (stored[..., 0], stored[..., 0].astype(np.uint16) * 257):
        Image.fromarray(label).save(tmp_path / "label.tif", exif=exif)
        np.testing.assert_array_equal(read_values_image(tmp_path / "label.tif"), label)
