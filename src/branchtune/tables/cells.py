"""`Cells`: a table of text, on a terminal of any width and as Markdown."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rich import box
from rich.table import Table

_GAP = 2  # between two columns, and what both edges take together
_LABEL = 32  # characters of a label that are shown in one line before columns go to a table of their own


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
        """For a terminal of `width` characters: columns that do not fit follow below, with the labels repeated."""
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
                table.add_column(
                    self.heading[column], justify="right" if number else "left", no_wrap=number, overflow="fold"
                )
            for row, texts in enumerate(self.body):
                table.add_row(*(texts[column] for column in columns), end_section=row in self.ends)
            yield table

    def _blocks(self, width: int) -> Iterator[list[int]]:
        labels = list(range(self.labels))
        widths = [self._width(column) for column in range(len(self.heading))]
        free = width - _GAP - sum(min(widths[column], _LABEL) + _GAP for column in labels)
        block, used = list[int](), 0
        for column in range(self.labels, len(self.heading)):
            needed = widths[column] + (_GAP if block else 0)
            if block and used + needed > free:
                yield labels + block
                block, used, needed = [], 0, widths[column]
            block, used = [*block, column], used + needed
        yield labels + block

    def _width(self, column: int) -> int:
        """Characters that a column needs: its longest cell, or line of its heading."""
        heading = max(map(len, self.heading[column].split("\n")))
        return max([heading, *(len(row[column]) for row in self.body)])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
