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


# What a key means is said where the class is; `name` and `weight` of a task are said once.
SAID_ONCE = ("class_path", "name", "weight")


def keys_without_comment(text: str) -> list[str]:
    """Leaf keys whose line has no comment."""
    lines, missing = text.splitlines(), []

    def visit(node: yaml.Node, path: str) -> None:
        if not isinstance(node, yaml.MappingNode):
            return
        for key, value in node.value:
            name, line = key.value, lines[key.start_mark.line]
            if not isinstance(value, yaml.MappingNode) or not value.value:
                said = "#" in line or (path.startswith("tasks.") and name in SAID_ONCE) or name == "class_path"
                if not said:
                    missing.append(f"{path}{name}")
            visit(value, f"{path}{name}.")

    visit(yaml.compose(text), "")
    return missing


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_key_is_commented(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert keys_without_comment(text) == []
    for key in yaml.safe_load(text):
        block = re.search(rf"^{key}:.*(?:\n[ #].*)*", text, re.MULTILINE)
        assert block is not None
        assert "#" in block.group(0), f"{path.name}: {key} has no comment"


def test_one_configuration_shows_every_key() -> None:
    shown = set(yaml.safe_load((CONFIGS[0].parent / "nyud_deit_tiny.yaml").read_text(encoding="utf-8")))
    assert shown == set(RunConfig.__dataclass_fields__)
