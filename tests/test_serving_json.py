"""JSON in pieces is the JSON of the whole."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from branchtune.serving.json_pieces import BYTES, Base64, json_pieces


def read(value: object) -> object:
    return json.loads(b"".join(json_pieces(value)))


@pytest.mark.parametrize("shape", [(0,), (5,), (25_000,), (3, 7), (30_000, 1), (2, 30_000), (3, 50, 400), (2, 0, 3)])
def test_arrays_are_nested_lists(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert read({"values": array}) == {"values": array.tolist()}


def test_what_is_not_finite_is_null() -> None:
    array = np.array([[1, np.nan], [-np.inf, np.inf]])
    assert read({"values": array, "low": float("nan")}) == {"values": [[1, None], [None, None]], "low": None}


@pytest.mark.parametrize("length", [0, 1, BYTES, BYTES + 1, 3 * BYTES - 1])
def test_bytes_are_base64(length: int) -> None:
    data = np.random.default_rng(0).bytes(length)
    assert base64.b64decode(str(read(Base64(data)))) == data


def test_all_else_is_json() -> None:
    value = {"a": {"b": [1, 2.5, None, 'ä " \\ \n'], "c": True}, "d": {}}
    assert read(value) == value


def test_no_piece_is_long() -> None:
    array = np.random.default_rng(0).normal(size=(100, 3000))
    pieces = list(json_pieces({"values": array, "npy": Base64(array.tobytes())}))
    assert len(pieces) > 20
    assert max(map(len, pieces)) < 3 * BYTES
