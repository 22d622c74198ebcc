"""Average relative gain of a multi-task model over single-task references."""

from __future__ import annotations

import math
from collections.abc import Mapping

from branchtune.errors import UserError


def relative_gains(
    results: Mapping[str, float], reference: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Gain of each task over its reference in percent, positive where the result is better.

    100 (M_t - S_t) / S_t with the sign turned where lower is better (arXiv 1904.08918).

    Args:
        results: task -> headline value M_t. These tasks are compared.
        reference: task -> headline value S_t of the single-task reference; may hold further tasks.
        higher_is_better: task -> direction of its headline metric.

    Raises:
        UserError: no task, a task without reference or direction, a value that is NaN or infinite, or a
            reference that is not positive.
    """
    if not results:
        raise UserError("no results to compare with the reference: give at least one task")
    return {task: _gain(task, value, reference, higher_is_better) for task, value in results.items()}


def delta_m(
    results: Mapping[str, float], reference: Mapping[str, float], higher_is_better: Mapping[str, bool]
) -> float:
    """Δm: the mean over tasks of `relative_gains`, in percent.

    Args:
        results: headline metric by task.
        reference: the same of the single-task models.
        higher_is_better: direction of the metric, by task.

    Raises:
        UserError: as `relative_gains`.
    """
    gains = relative_gains(results, reference, higher_is_better)
    return math.fsum(gains.values()) / len(gains)


def _gain(task: str, value: float, reference: Mapping[str, float], higher_is_better: Mapping[str, bool]) -> float:
    if task not in reference:
        listed = ", ".join(sorted(reference)) or "none"
        raise UserError(f"task {task!r} has no reference (it has: {listed}): add one or leave the task out")
    if task not in higher_is_better:
        raise UserError(f"task {task!r}: say in higher_is_better whether higher values of its metric are better")
    base = reference[task]
    if not math.isfinite(value):
        raise UserError(f"task {task!r}: the result is {value}, was it evaluated on samples without this label?")
    if not math.isfinite(base) or base <= 0:
        raise UserError(f"task {task!r}: the reference is {base}, a relative gain needs a positive number")
    gain = 100.0 * (value - base) / base
    return gain if higher_is_better[task] else -gain
