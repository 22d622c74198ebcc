"""`Cells`: a table of text, on a terminal of any width and as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.table import Table
from rich.text import Text

_GAP, _EDGES = 3, 2  # characters between two columns, and at both ends of a line together
_LABEL = 22  # characters of a label; longer ones are wrapped before columns go to a table of their own
_HEADING = 8  # characters of a heading that share a line


@dataclass(frozen=True)
class Cells:
    """A table: a heading per column, and rows of text.

    Attributes:
        title: above it; may be empty.
        heading: of the columns; a line break in one holds on a terminal only.
        body: the rows.
        ends: rows (counted from 0) that a section ends with.
        labels: how many columns, from the left, are text; the others are numbers.
    """

    title: str
    heading: list[str]
    body: list[list[str]]
    ends: Collection[int] = ()
    labels: int = 1

    def markdown(self) -> str:
        """A GitHub table, without the title."""
        rule = ["---"] * self.labels + ["---:"] * (len(self.heading) - self.labels)
        heading = [text.replace("-\n", "-").replace("\n", " ") for text in self.heading]
        lines = [[_escaped(text) for text in line] for line in (heading, rule, *self.body)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def rich(self, width: int) -> Iterator[Table]:
        """For a terminal of `width` characters: columns that do not fit follow below, beside the labels again."""
        for index, columns in enumerate(self._blocks(width)):
            table = Table(
                title=None if index or not self.title else self.title,
                title_justify="left",
                title_style="bold",
                box=box.SIMPLE_HEAD,
                pad_edge=False,
            )
            for column in columns:
                number = column >= self.labels
                justify: Literal["right", "left"] = "right" if number else "left"
                table.add_column(Text(self._heading(column)), justify=justify, no_wrap=number, overflow="fold")
            for row, texts in enumerate(self.body):
                table.add_row(*(Text(texts[column]) for column in columns), end_section=row in self.ends)
            yield table

    def _blocks(self, width: int) -> list[list[int]]:
        """The columns of each part: as few parts as fit, of about one width."""
        labels = list(range(self.labels))
        free = width - _EDGES - sum(min(self._width(column), _LABEL) + _GAP for column in labels)
        parts = self._filled(free)
        for narrower in range(free - 1, 0, -1):
            found = self._filled(narrower)
            if len(found) > len(parts):
                break
            parts = found
        return [labels + part for part in parts]

    def _filled(self, free: int) -> list[list[int]]:
        """The columns of numbers, in parts of `free` characters as far as they fit."""
        parts, used = [list[int]()], 0
        for column in range(self.labels, len(self.heading)):
            needed = self._width(column)
            if parts[-1] and used + _GAP + needed > free:
                parts.append([])
            used = needed + (used + _GAP if parts[-1] else 0)
            parts[-1].append(column)
        return parts

    def _heading(self, column: int) -> str:
        """Broken between words where it is longer than the numbers below."""
        text, longest = self.heading[column], self._longest(column)
        if column < self.labels or "\n" in text:
            return text
        return "\n".join(textwrap.wrap(text, max(_HEADING, longest), break_long_words=False, break_on_hyphens=False))

    def _width(self, column: int) -> int:
        """Characters that a column needs."""
        return max([self._longest(column), *map(len, self._heading(column).split("\n"))])

    def _longest(self, column: int) -> int:
        return max([0, *(len(row[column]) for row in self.body)])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
