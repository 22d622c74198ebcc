"""What can be said of a command in the documentation without running it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import lru_cache
from pathlib import Path

from branchtune.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]
# Nothing of this project: their spelling is not ours to check.
OTHERS = (".", "git", "cd", "ls", "cp", "curl", "source", "mkdocs", "python3")


def check_command(command: str) -> None:
    """Fail unless the command, and every option of ours in it, exists."""
    words = shlex.split(command.replace("|", " "))
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
    for option in words[1:]:
        if option.startswith("-"):
            # The help lists a key that holds others by its own name: --tasks, --adapter, --data.kind.
            given = option.partition("=")[0]
            known = {given, re.split(r"[.]", given)[0]}
            assert known & _options(name), f"{command}: branchtune {name} has no {given}"


@lru_cache
def _options(name: str) -> frozenset[str]:
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([name, "--help"])
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w.-]*", text.getvalue())) | {"--help", "--print_config"}
