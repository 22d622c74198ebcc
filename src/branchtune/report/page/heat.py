"""Affinities as tables whose cells are coloured."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from branchtune.affinity.matrix import Affinity, Matrix
from branchtune.report.page.heat_picture import heat_picture
from branchtune.report.page.most_rows import strongest
from branchtune.tables.numbers import rounded

# Tasks of a map whose cells have numbers, each of which takes 160 bytes of the page.
MOST_OVERALL, MOST_OF_A_LEVEL = 60, 30


@dataclass(frozen=True)
class HeatCell:
    """One pair of tasks: what is written, the colour behind it, and what a pointer shows.

    Attributes:
        unclear: zero because the measured value is within its standard error, not because it was found to be.
    """

    text: str
    style: str
    title: str
    unclear: bool


@dataclass(frozen=True)
class HeatMap:
    """One matrix, with a row and a column per task; a picture as a data URI instead of rows where they are many."""

    title: str
    tasks: tuple[str, ...]
    rows: list[list[HeatCell]]
    picture: str | None = None


def heat_maps(affinity: Affinity) -> list[HeatMap]:
    """The corrected affinity over all levels, then at every level; of many tasks those of the levels are pictures."""
    return [_heat_map(affinity, level) for level in (None, *range(len(affinity.spec.levels)))]


def plain_cosines(affinity: Affinity) -> tuple[list[str], list[list[str]], str]:
    """Heading and rows of a table with the measured value of every pair, overall and by level, and its error.

    The last is what to say where rows are left out, those of the smallest cosines over all levels.
    """
    levels = [None, *range(len(affinity.spec.levels))]
    heading = ["tasks", *(_title(level) for level in levels)]
    pairs = list(itertools.combinations_with_replacement(range(len(affinity.tasks)), 2))
    shown, left_out = strongest(pairs, lambda pair: abs(float(affinity.overall[pair])))
    rows = [[_pair(affinity, a, b), *(_measured(affinity, level, a, b) for level in levels)] for a, b in shown]
    return heading, rows, left_out


def _title(level: int | None) -> str:
    return "all levels" if level is None else f"level {level}"


def _heat_map(affinity: Affinity, level: int | None) -> HeatMap:
    values, (_, errors) = affinity.corrected(level), _matrices(affinity, level)
    count = range(len(affinity.tasks))
    if len(affinity.tasks) > (MOST_OVERALL if level is None else MOST_OF_A_LEVEL):
        return HeatMap(_title(level), affinity.tasks, [], heat_picture(values))

    def cell(a: int, b: int) -> HeatCell:
        value, unclear = rounded(float(values[a, b])), bool(values[a, b] == 0 < errors[a, b] < math.inf)
        side = "pos" if value >= 0 else "neg"
        style = f"background: color-mix(in oklab, var(--{side}) {100 * min(1.0, abs(value)):.0f}%, var(--surface))"
        title = f"{_pair(affinity, a, b)}, {_title(level)}: {value:.2f}, measured {_measured(affinity, level, a, b)}"
        title += ", within its standard error" if unclear else ""
        return HeatCell(f"{value:.2f}".replace("-", "−"), style, title, unclear)

    return HeatMap(_title(level), affinity.tasks, [[cell(a, b) for b in count] for a in count])


def _pair(affinity: Affinity, a: int, b: int) -> str:
    return f"{affinity.tasks[a]} – {affinity.tasks[b]}"


def _matrices(affinity: Affinity, level: int | None) -> tuple[Matrix, Matrix]:
    """Measured values and their standard errors."""
    if level is None:
        return affinity.overall, affinity.overall_error
    return affinity.per_level[level], affinity.per_level_error[level]


def _measured(affinity: Affinity, level: int | None, a: int, b: int) -> str:
    matrix, errors = _matrices(affinity, level)
    value, error = float(matrix[a, b]), float(errors[a, b])
    if not math.isfinite(error) or error <= 0:
        return f"{value:.3g}"
    digits = min(7, max(2, 1 - math.floor(math.log10(error))))
    return f"{rounded(value, digits):.{digits}f} ± {error:.{digits}f}"
