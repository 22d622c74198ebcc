"""`Outcome`: what a command ends with, for people and for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from branchtune.tables.cells import Cells
from branchtune.tables.csv_text import csv_text

Format = Literal["md", "json", "csv"]


@dataclass(frozen=True)
class Outcome:
    """The final tables of a command.

    Attributes:
        tables: rounded, for people.
        notes: lines below them, such as what Δm divides by.
        records: rows of a CSV table, with full precision; None is an empty cell.
        content: the same for JSON, with everything that belongs to it.
    """

    tables: Sequence[Cells]
    notes: Sequence[str]
    records: Sequence[Mapping[str, Any]]
    content: Mapping[str, Any]

    def text(self, kind: Format) -> str:
        """In one of the formats, ending with a line break."""
        return {"md": self.markdown, "json": self.json, "csv": self.csv}[kind]()

    def markdown(self) -> str:
        """Titles, GitHub tables and notes, in paragraphs."""
        parts = [part for cells in self.tables for part in (f"{cells.title}:", cells.markdown()) if part != ":"]
        return "\n\n".join([*parts, *self.notes]) + "\n"

    def json(self) -> str:
        """One object; what is not finite is null, as JSON has no NaN."""
        return json.dumps(_finite(self.content), indent=2, allow_nan=False) + "\n"

    def csv(self) -> str:
        """A heading and a line for every record; what is not finite is an empty cell."""
        return csv_text(_finite(self.records))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, (list, tuple)) else value
