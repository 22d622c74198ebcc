"""Rows as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any


def csv_text(rows: Sequence[Mapping[str, Any]], digits: int | None = None) -> str:
    """A heading and a line per row; the columns are all keys in the order of first use, empty where a row has none.

    Args:
        rows: None is an empty cell.
        digits: significant ones of a float; default all.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows if digits is None else [_rounded(row, digits) for row in rows])
    return text.getvalue()


def _rounded(row: Mapping[str, Any], digits: int) -> dict[str, Any]:
    return {key: f"{value:.{digits}g}" if isinstance(value, float) else value for key, value in row.items()}
