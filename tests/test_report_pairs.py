"""What the report shows of all pairs of tasks where they are very many."""

from __future__ import annotations

import base64
import io
import math

import numpy as np
import pytest
from PIL import Image

from branchtune.report.page.heat_picture import NEGATIVE, POSITIVE, heat_picture
from branchtune.report.page.most_rows import strongest


def test_colours_are_signs_and_transparency_is_what_lacks_to_one() -> None:
    uri = heat_picture(np.array([[1.0, -0.5, 0.0], [math.nan, -3.0, math.inf]]))
    image = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA")
    pixels = np.asarray(image)
    assert tuple(pixels[0, 0]) == (*POSITIVE, 255)
    assert tuple(pixels[0, 1]) == (*NEGATIVE, 128)
    assert tuple(pixels[1, 1]) == (*NEGATIVE, 255)
    assert pixels[[0, 1, 1], [2, 0, 2], 3].tolist() == [0, 0, 0]


def test_all_rows_are_kept_where_they_are_few() -> None:
    assert strongest([3, 1, 2], float) == ([3, 1, 2], "")


def test_the_strongest_rows_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("branchtune.report.page.most_rows.MOST", 2)
    assert strongest([3.0, math.nan, 1.0, 2.0], float) == ([3.0, 2.0], "2 of 4 rows")
