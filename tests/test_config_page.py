"""docs/configuration.md says what the dataclasses say, and every key has a meaning."""

from __future__ import annotations

import dataclasses

from branchtune.config import RunConfig
from project_scripts import script


def test_the_page_is_not_stale() -> None:
    module = script("config_page")
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), "run `python scripts/config_page.py`"


def test_every_key_is_there_with_its_type_and_default() -> None:
    module = script("config_page")
    rows = {row.name: row for row in module.keys(RunConfig)}
    assert list(rows) == [field.name for field in dataclasses.fields(RunConfig)]
    assert rows["seed"] == (
        "seed",
        "whole number",
        "default `0`",
        "of weights, order of the data, augmentation and dropout.",
    )
    assert rows["extras"].type == "list of texts"
    assert rows["data"].type == "[keys](#data)"
    assert all(row.meaning for row in rows.values())
