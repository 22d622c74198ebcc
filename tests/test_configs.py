"""The configurations in configs/: they parse, and every key says what it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from branchtune.config import RunConfig
from branchtune.settings import Settings

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_parses_into_typed_objects(path: Path) -> None:
    config = Settings.load(path).config
    assert all(task.name == name for name, task in config.tasks.items())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_section_is_commented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for key in yaml.safe_load(text):
        block = re.search(rf"^{key}:.*(?:\n[ #].*)*", text, re.MULTILINE)
        assert block is not None
        assert "#" in block.group(0), f"{path.name}: {key} has no comment"


def test_one_configuration_shows_every_key() -> None:
    shown = set(yaml.safe_load((CONFIGS[0].parent / "nyud_deit_tiny.yaml").read_text(encoding="utf-8")))
    assert shown == set(RunConfig.__dataclass_fields__)
