"""The API reference lists what users import, and what it lists exists."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import branchtune
from doc_blocks import blocks
from project_scripts import script

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
DOCUMENTATION = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LISTED = script("docs_names").listed()
MODULES = sorted({name.rpartition(".")[0] for name in LISTED} - {"branchtune"})


def test_every_public_name_is_listed() -> None:
    public = {f"branchtune.{name}" for name in branchtune.__all__ if not name.startswith("_")}
    assert public <= set(LISTED), "add a line `::: NAME` to a page of docs/api"


@pytest.mark.parametrize("page", DOCUMENTATION, ids=lambda page: page.stem)
def test_what_a_page_tells_users_to_import_is_listed(page: Path) -> None:
    assert set(imported(page)) <= set(LISTED), "add a line `::: NAME` to a page of docs/api"
    for name in re.findall(r"`(branchtune\.(?!json)\w+(?:\.\w+)*)`", page.read_text(encoding="utf-8")):
        assert name in (*LISTED, *MODULES), f"{page.name}: {name}"


def imported(page: Path) -> Iterator[str]:
    """The names of branchtune that the Python blocks of a page use."""
    for block in blocks(page):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("branchtune"):
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bt":
                yield f"branchtune.{node.attr}"


def test_every_listed_name_exists_once() -> None:
    assert len(LISTED) == len(set(LISTED))
    last = [name.rpartition(".")[2] for name in LISTED]
    assert len(last) == len(set(last)), "two entries of one name: a link by name could mean either"
    for name in LISTED:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name


def test_every_page_is_in_the_navigation_and_in_the_overview() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    overview = (ROOT / "docs" / "api" / "index.md").read_text(encoding="utf-8")
    for page in PAGES:
        assert f"api/{page.name}\n" in navigation
        assert page.name == "index.md" or f"]({page.name})" in overview


@pytest.mark.parametrize("module", ["branchtune.tree", "branchtune.extension"])
def test_examples_of_the_docstrings_hold(module: str) -> None:
    results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed
