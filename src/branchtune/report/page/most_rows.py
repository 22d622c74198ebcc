"""Tables with a row per pair of tasks, which grow with the square of their number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

MOST = 600  # rows of a table: all pairs of 34 tasks

T = TypeVar("T")


def strongest(rows: Sequence[T], strength: Callable[[T], float]) -> tuple[list[T], str]:
    """As many rows as a page holds, in their order, and what to say of those left out, which are the weakest.

    Args:
        rows: all.
        strength: of one; what is not a number counts as none.
    """
    if len(rows) <= MOST:
        return list(rows), ""

    def known(index: int) -> float:
        value = strength(rows[index])
        return value if value == value else float("-inf")

    kept = sorted(sorted(range(len(rows)), key=known, reverse=True)[:MOST])
    return [rows[index] for index in kept], f"{MOST} of {len(rows):,} rows"
