"""What can be said of a command in the documentation without running it."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from importlib import import_module
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import NoReturn
from unittest.mock import patch

import lightning
from jsonargparse import ArgumentParser

from branchtune.cli import arguments
from branchtune.cli.export import ENDINGS
from branchtune.cli.main import COMMANDS
from branchtune.errors import UserError
from branchtune.settings import parse

ROOT = Path(__file__).resolve().parents[1]
# Stands for the configuration of a command; it has the tasks that the pages name.
CONFIG = ROOT / "src" / "branchtune" / "demo" / "scenes.yaml"
# Nothing of this project: their spelling is not ours to check.
OTHERS = (".", "git", "cd", "ls", "cp", "curl", "source", "mkdocs", "python3")
# `[RUN ...]` in a command that is shown: further ones may follow.
USAGE = re.compile(r"\[[A-Z]+ \.\.\.\]")


def check_quoted(command: str) -> None:
    """Fail where brackets stand outside of quotes: zsh takes them for a pattern and ends with "no matches found"."""
    bare = USAGE.sub("", re.sub(r"'[^']*'|\"[^\"]*\"", "", command))
    assert "[" not in bare, f"{command}: zsh takes brackets without quotes for a pattern"


def check_command(command: str) -> None:
    """Fail unless the command exists and takes the options and values that it is given."""
    check_quoted(command)
    words = list(takewhile(lambda word: word != "|", shlex.split(command)))
    if "branchtune" in words:
        _check_branchtune(words[words.index("branchtune") + 1 :], command)
    elif words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8"), command
    elif words[0] == "pip":
        extras = re.findall(r"(?:branchtune|\.)\[(.+?)\]", command)
        known = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        assert words[1] == "install", command
        assert all(f"\n{extra} = [" in known for group in extras for extra in group.split(",")), command
    elif words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), command
    else:
        assert words[0] in OTHERS, f"{command}: neither run nor checked"


def _check_branchtune(words: list[str], command: str) -> None:
    name = words[0] if words else "--help"
    if name.startswith("-"):
        assert name in ("--help", "--version"), command
        return
    assert name in COMMANDS, command
    for given in _alternatives(words[1:]):
        if given:  # else only the command's name is mentioned
            try:
                _check_values(name, given)
            except UserError as error:
                raise AssertionError(f"{command}: {error}") from error


def _check_values(name: str, words: list[str]) -> None:
    parser = _parser(name)
    for word in words:
        if "..." in word and word.startswith("--"):  # a value that is left to the reader
            key = word.partition("=")[0].lstrip("-").partition(".")[0]
            assert key in {action.dest for action in parser._actions}, f"branchtune {name} has no {word}"
    words = [word for word in words if "..." not in word and word not in ("--help", "--print_config")]
    takes_config = "--config" in parser._option_string_actions
    if takes_config:
        words = ["--config", str(CONFIG), *dropwhile(lambda word: not word.startswith("-"), words)]
    found = parse(parser, words)
    if takes_config:
        unknown = set(found.trainer) - set(inspect.signature(lightning.Trainer).parameters)
        assert not unknown, f"lightning.Trainer has no {unknown}"
    if name == "export":
        assert found.format in ENDINGS, found.format


def _alternatives(words: list[str]) -> list[list[str]]:
    """`--format md|json` is two commands."""
    for index, word in enumerate(words):
        if "|" in word:
            head, mark, values = word.rpartition("=")
            return [
                rest
                for value in values.split("|")
                for rest in _alternatives([*words[:index], f"{head}{mark}{value}", *words[index + 1 :]])
            ]
    return [words]


@lru_cache
def _parser(name: str) -> ArgumentParser:
    """The parser that a command makes for itself."""
    found: list[ArgumentParser] = []

    def keep(parser: ArgumentParser, words: Sequence[str]) -> NoReturn:
        found.append(parser)
        raise UserError("not run")

    module = import_module(f"branchtune.cli.{name.replace('-', '_')}")
    with ExitStack() as patches, suppress(UserError):
        for place in (module, arguments):
            if hasattr(place, "parse"):
                patches.enter_context(patch.object(place, "parse", keep))
        module.run(["--help"])
    return found[0]
