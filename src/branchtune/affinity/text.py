"""`Affinity` as text."""

from __future__ import annotations

import math

from branchtune.affinity.matrix import Affinity

_KINDS = {"none": "cosine", "elementwise": "element-wise cosine", "per_tensor": "per-tensor cosine"}


def affinity_table(affinity: Affinity, level: int | None) -> str:
    """One row and one column per task."""
    matrix = affinity.overall if level is None else affinity.per_level[level]
    errors = affinity.overall_error if level is None else affinity.per_level_error[level]
    rows = [["", *affinity.tasks]]
    for task, values, spread in zip(affinity.tasks, matrix.tolist(), errors.tolist(), strict=True):
        rows.append([task, *map(_cell, values, spread)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
    )


def affinity_text(affinity: Affinity) -> str:
    """What was measured and how, the overall table, and the cost."""
    lines = [
        f"affinity on {affinity.spec.name}: {_KINDS[affinity.normalize]} of gradients of the {affinity.source} "
        f"between different samples{_samples(affinity)}",
        affinity_table(affinity, None),
    ]
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


def _cell(value: float, error: float) -> str:
    return f"{value:.3f}" if math.isnan(error) else f"{value:.3f} ±{error:.3f}"
