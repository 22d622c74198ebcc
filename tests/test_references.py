"""References survive the disk, and a file that is not one says what is wrong with it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from branchtune.errors import UserError
from branchtune.evaluation.references import Reference

REFERENCE = Reference(
    "scenes-swin-128",
    {"semseg": 0.61, "depth": 0.32},
    {"epochs": 20, "backbone": "swin", "per_seed": {"semseg": [0.60, 0.62], "depth": [0.31, 0.33]}},
)


def test_round_trip_into_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "reference.json"
    REFERENCE.save(path)
    assert Reference.load(path) == REFERENCE
    assert json.loads(path.read_text())["format"] == 1


def test_saving_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    Reference("old", {"semseg": 0.1}).save(path)
    REFERENCE.save(path)
    assert Reference.load(path) == REFERENCE
    assert [file.name for file in tmp_path.iterdir()] == ["reference.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reference.json"
    REFERENCE.save(path)

    def full(source: str, target: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*reference.json: No space left"):
        Reference("new", {"semseg": 0.9}).save(path)
    assert Reference.load(path) == REFERENCE
    assert [file.name for file in tmp_path.iterdir()] == ["reference.json"]


def test_settings_that_do_not_fit_into_json(tmp_path: Path) -> None:
    for value in (object(), float("nan")):
        with pytest.raises(UserError, match="reference 'x': its settings do not fit into JSON"):
            Reference("x", {}, {"value": value}).save(tmp_path / "x.json")
    assert list(tmp_path.iterdir()) == []


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.json does not exist: `branchtune reference CONFIG`"):
        Reference.load(tmp_path / "none.json")


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read .*check the path"):
        Reference.load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"format": 1, "id": "x", "metr',
        "[]",
        '{"id": "x", "metrics": {}, "settings": {}}',
        '{"format": 1, "id": "x", "settings": {}}',
        '{"format": 1, "id": "x", "metrics": {"semseg": "high"}, "settings": {}}',
        '{"format": 1, "id": "x", "metrics": {"semseg": NaN}, "settings": {}}',
        '{"format": 1, "id": "x", "metrics": 3, "settings": {}}',
        '{"format": 1, "id": "", "metrics": {}, "settings": {}}',
        '{"format": 1, "id": 7, "metrics": {}, "settings": {}}',
    ],
)
def test_damaged_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"reference.json'? is damaged") as error:
        Reference.load(path)
    assert "\n" not in str(error.value)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="damaged"):
        Reference.load(path)


def test_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text('{"format": 2}')
    with pytest.raises(UserError, match="has format 2, this version reads 1: update branchtune"):
        Reference.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None])
def test_values_that_nothing_can_be_divided_by(value: float) -> None:
    with pytest.raises(UserError, match=r"reference 'x': the value of task 'semseg' is .*, not a finite number"):
        Reference("x", {"semseg": value})


def test_an_id_is_needed() -> None:
    with pytest.raises(UserError, match="a reference needs an id"):
        Reference("", {})
