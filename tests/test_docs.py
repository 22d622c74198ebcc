"""Every code block of the documentation runs, or is checked where it cannot."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from branchtune.cli.main import main
from branchtune.data.declared import read_declaration
from branchtune.settings import Settings
from doc_blocks import LANGUAGES, MARKS, Block, blocks, commands, inline_commands, inline_options, setup_of
from doc_checks import ROOT, check_command, check_quoted
from doc_setups import SETUPS, SHORT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if blocks(page)]
WITH_SLOW = [page for page in PAGES if any(block.mark == "slow" for block in blocks(page))]

QUIET = ("example-data", "fit", "reference", "check-data", "predict")

# A configuration around the keys that a page shows alone.
BASE = {"tasks": {"depth": {"class_path": "branchtune.Depth", "init_args": {"name": "depth"}}}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to work in; modules that a page writes there can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_in_order(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_page(page, folder, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_SLOW, ids=lambda page: page.stem)
def test_so_do_the_slow_ones(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_page(page, folder, monkeypatch, slow=True)


def _run_page(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, slow: bool) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    if setup_of(page):
        names |= SETUPS[setup_of(page)](monkeypatch)
    printed = ""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block.place}: say what the block holds ({', '.join(LANGUAGES)})"
        assert block.mark in MARKS, f"{block.place}: {block.mark} is no mark"
        if block.language != "text":
            printed = _run(block, folder, names, block.mark in ("", "slow" if slow else "", _installed(block)))
            continue
        if printed:
            assert _as_shown(block.text, printed), f"{block.place} shows\n{block.text}\nbut printed is\n{printed}"
        printed = ""


def _installed(block: Block) -> str:
    """The mark of a block whose module is here."""
    return "needs" if block.mark == "needs" and find_spec(block.value) else ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_in_the_text_exist(page: Path) -> None:
    for command in inline_commands(page):
        check_command(command)
    for option in inline_options(page):
        check_quoted(option)


def _run(block: Block, folder: Path, names: dict[str, Any], really: bool) -> str:
    """Do what a reader would do with a block, or only look at it; returns what its Python code printed."""
    if block.title:
        (folder / block.title).write_text(block.text, encoding="utf-8")
    if block.language == "sh":
        for command in commands(block.text):
            _run_command(command, block, really)
    elif block.language == "yaml":
        _parse(block, folder)
    else:
        code = compile(block.text, block.place, "exec")
        if not block.title and really:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(code, names)
            return printed.getvalue()
    return ""


def _run_command(command: str, block: Block, really: bool) -> None:
    if block.mark != "check" or "branchtune" in command:
        check_command(command)
    else:
        check_quoted(command)
    words = shlex.split(command)
    if words[0] == "branchtune" and really:
        name = words[1]
        with contextlib.redirect_stdout(io.StringIO()):
            status = main([*words[1:], *SHORT.get(name, []), *(["--quiet"] if name in QUIET else [])])
        assert status == 0, f"{block.place}: {command}"


def _parse(block: Block, folder: Path) -> None:
    content = yaml.safe_load(block.text)
    assert isinstance(content, dict), f"{block.place}: keys and values are expected"
    labels = content.get("tasks", {}).values()
    path = folder / (block.title or "shown.yaml")
    if any("kind" in label for label in labels):
        path.write_text(block.text, encoding="utf-8")
        read_declaration(path)
    else:
        path.write_text(yaml.safe_dump(BASE | content) if not block.title else block.text, encoding="utf-8")
        assert Settings.load(path).config


def _as_shown(shown: str, printed: str) -> bool:
    """Whether they agree, up to spaces at line ends; a line `...` stands for any lines."""
    lines = [re.escape(line.rstrip()) for line in shown.strip().splitlines()]
    pattern = "\n".join(lines).replace(re.escape("..."), r"[\s\S]*?")
    return re.fullmatch(pattern, "\n".join(line.rstrip() for line in printed.strip().splitlines())) is not None


RIGHT_AND_WRONG = [
    ("branchtune fit", "branchtune fot"),
    ("branchtune fit CONFIG --adapter.r=2", "branchtune fit CONFIG --adaptor.r=2"),
    ("branchtune fit CONFIG --adapter.r=2", "branchtune fit CONFIG --adapter.no_such_key=2"),
    ("branchtune fit CONFIG --data.seed=1", "branchtune fit CONFIG --data.no_such_key=1"),
    ("branchtune fit CONFIG --data.workers=1", "branchtune fit CONFIG --data.workers=many"),
    ("branchtune fit CONFIG --evaluate best|last", "branchtune fit CONFIG --evaluate best|most"),
    ("branchtune fit CONFIG --trainer.devices=4", "branchtune fit CONFIG --trainer.no_such_key=4"),
    (
        "branchtune fit CONFIG --tasks.edge.init_args.match_dist=0.011",
        "branchtune fit CONFIG --tasks.edge.init_args.no_such_key=0.011",
    ),
    ("branchtune predict RUN IMAGES --sheet beside", "branchtune predict RUN IMAGES --sheet nonsense"),
    ("branchtune predict RUN IMAGES", "branchtune predict RUN"),
    ("branchtune export RUN --format onnx|peft", "branchtune export RUN --format onnx|gif"),
    ("branchtune add-task RUN --tasks.NAME='{class_path: ...}'", "branchtune add-task RUN --task.NAME='{...}'"),
    ("make demo", "make nothing"),
    ('pip install -e ".[onnx,serve]"', 'pip install -e ".[onnx,no_such]"'),
    ('pip install -e ".[onnx]"', "pip install -e .[onnx]"),
    ("branchtune plan RUN --groups='[1,1,2,4]'", "branchtune plan RUN --groups=[1,1,2,4]"),
    ("branchtune fit CONFIG '--tree.groups=[1,1,2,4]'", "branchtune fit CONFIG --tree.groups [1,1,2,4]"),
    ("branchtune report RUN [RUN ...]", "branchtune report RUN [RUN]"),
]


@pytest.mark.parametrize(("right", "wrong"), RIGHT_AND_WRONG)
def test_a_wrong_command_is_noticed(right: str, wrong: str) -> None:
    check_command(right)
    with pytest.raises(AssertionError):
        check_command(wrong)


def test_an_unknown_language_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text('```\nfree\n```\n<!-- check -->\n```sh title="x"\nls \\\n  a  # why\n```\n')
    first, second = blocks(page)
    assert first.language not in LANGUAGES
    assert (second.title, second.mark, commands(second.text)) == ("x", "check", ["ls    a"])
