"""Uploads: what is no image, or too large a one, is refused at once; all others are read as `predict` reads them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from PIL import Image

from branchtune.data.decoding import read_image
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
