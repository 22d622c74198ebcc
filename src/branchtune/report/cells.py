"""A table of texts: what every report prints, on a terminal, in Markdown or on a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cells:
    """A table: a heading per column, and rows of text."""

    title: str
    heading: list[str]
    body: list[list[str]]

    def markdown(self) -> str:
        lines = [self.heading, ["---", *["---:"] * (len(self.heading) - 1)], *self.body]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)
