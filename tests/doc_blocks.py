"""The fenced blocks and the inline commands of a Markdown page."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

FENCE = re.compile(r"^( *)```(.*?)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- ([\w ]+)(?:: (.*?))? -->")
LANGUAGES = ("python", "sh", "yaml", "text")
MARKS = ("", "check", "slow", "needs")


class Block(NamedTuple):
    """One fenced block.

    Attributes:
        place: page and line, for messages.
        language: of its first line.
        title: the name of the file that it shows; empty for none.
        mark: of the comment on the line before: `check` (looked at, not run), `slow` (run by the slow tests only),
            `needs` (run where the module `value` is installed), or nothing.
        value: what the comment says beside the mark.
        text: its content.
    """

    place: str
    language: str
    title: str
    mark: str
    value: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    content = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(content):
        language, _, rest = match[2].partition(" ")
        title = re.search(r'title="(.+?)"', rest)
        before = content[: match.start()].rstrip().rpartition("\n")[2]
        mark = MARK.fullmatch(before.strip())
        mark = None if mark and mark[1] == "setup" else mark
        line = content.count("\n", 0, match.start()) + 1
        found.append(
            Block(
                f"{page.name}:{line}",
                language,
                title[1] if title else "",
                mark[1] if mark else "",
                (mark[2] or "") if mark else "",
                textwrap.dedent(match[3]),
            )
        )
    return found


def setup_of(page: Path) -> str:
    """The name of the hidden set-up that a page asks for; empty for none."""
    found = [value for name, value in MARK.findall(page.read_text(encoding="utf-8")) if name == "setup"]
    return found[0] if found else ""


def inline_commands(page: Path) -> list[str]:
    """Every `branchtune ...` in the running text and the tables."""
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [command.replace("\\|", "|") for command in re.findall(r"`(branchtune [^`\n]+)`", prose)]


def inline_options(page: Path) -> list[str]:
    """Every `--key=value` in the running text and the tables that stands without its command."""
    return re.findall(r"`(--[^`\n]+)`", FENCE.sub("", page.read_text(encoding="utf-8")))


def commands(text: str) -> list[str]:
    """The commands of a shell block, continued lines joined, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := re.sub(r"(^|\s)# .*$", "", line).strip())]
