"""`Affinity` as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from branchtune.affinity.matrix import Affinity, Matrix

_WIDTH = 80
_KINDS = {"none": "cosine", "elementwise": "element-wise cosine", "per_tensor": "per-tensor cosine"}


def affinity_table(affinity: Affinity, level: int | None) -> str:
    """One row and one column per task: the plain cosines with their standard errors."""
    matrix = affinity.overall if level is None else affinity.per_level[level]
    errors = affinity.overall_error if level is None else affinity.per_level_error[level]
    digits = _digits(errors)
    cells = [
        [_cell(value, error, digits) for value, error in zip(values, spread, strict=True)]
        for values, spread in zip(matrix.tolist(), errors.tolist(), strict=True)
    ]
    return _table(affinity.tasks, cells)


def _table(tasks: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Columns that do not fit into a line follow below, beside the tasks again."""
    rows = [["", *tasks], *([task, *row] for task, row in zip(tasks, cells, strict=True))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    count = max(1, (_WIDTH - widths[0]) // (max(widths[1:]) + 2))
    parts = []
    for start in range(1, len(widths), count):
        shown = slice(start, start + count)
        for row in rows:
            numbers = map(str.rjust, row[shown], widths[shown])
            parts.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(parts)


def affinity_text(affinity: Affinity) -> str:
    """What was measured and how, the overall table, and the cost."""
    lines = [
        f"affinity on {affinity.spec.name}: {_KINDS[affinity.normalize]} of gradients of the {affinity.source} "
        f"between different samples{_samples(affinity)}",
        affinity_table(affinity, None),
    ]
    if not np.isnan(affinity.overall_error).all():
        corrected = [[f"{value:.2f}" for value in row] for row in affinity.corrected()]
        lines += ["without the noise of single samples, as the plan takes it:", _table(affinity.tasks, corrected)]
    cost = affinity.cost
    if cost.passes:
        lines.append(
            f"cost: {cost.seconds + cost.fit_seconds:.1f} s, "
            f"as many passes as training on {cost.passes / 2:,.0f} images"
        )
    return "\n".join(lines)


def _samples(affinity: Affinity) -> str:
    if not affinity.samples:
        return ""
    low, high = min(affinity.samples.values()), max(affinity.samples.values())
    return f", {low} samples per task" if low == high else f", {low} to {high} samples per task"


def _digits(errors: Matrix) -> int:
    """Decimals that show the largest error with two digits: cosines of single samples can be thousandths."""
    largest = np.nanmax(errors, initial=0.0, where=np.isfinite(errors))
    return 3 if largest == 0 else min(6, max(3, 1 - math.floor(math.log10(largest))))


def _cell(value: float, error: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isnan(error) else f"{value:.{digits}f} ±{error:.{digits}f}"
