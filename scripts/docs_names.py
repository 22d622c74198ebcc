"""An extension of griffe: a name of the API reference in a docstring's `code` becomes a link to its entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

PAGES = Path(__file__).resolve().parents[1] / "docs" / "api"
ENTRY = re.compile(r"^::: (\S+)$", re.MULTILINE)
NAME = re.compile(r"(?<!\[)`([A-Za-z_][\w.]*)`")


def listed() -> list[str]:
    """The full names that the pages of the reference show, in order."""
    return [name for page in sorted(PAGES.glob("*.md")) for name in ENTRY.findall(page.read_text(encoding="utf-8"))]


class Names(griffe.Extension):
    """Docstrings stay readable in `help()`: they name what they mean, and the link is made here."""

    def __init__(self) -> None:
        names = listed()
        # `tree_cost`, `cost.tree_cost` and `branchtune.cost.tree_cost` mean the same.
        self.entries = {name.split(".", start)[-1]: name for name in names for start in range(name.count(".") + 1)}

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = NAME.sub(lambda found: self._linked(found, obj, loader), obj.docstring.value)

    def _linked(self, found: re.Match[str], obj: griffe.Object, loader: griffe.GriffeLoader) -> str:
        entry = self._entry(found[1], loader)
        if entry is None or loader.modules_collection[entry].canonical_path == obj.path:
            return found[0]
        return f"[{found[0]}][{entry}]"

    def _entry(self, name: str, loader: griffe.GriffeLoader) -> str | None:
        if name in self.entries:
            return self.entries[name]
        owner, _, member = name.rpartition(".")
        if owner not in self.entries:
            return None
        found = loader.modules_collection[self.entries[owner]].all_members.get(member)
        return f"{self.entries[owner]}.{member}" if found is not None and found.has_docstring else None
