"""What `fit` and `evaluate` end with, for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from branchtune.evaluation.delta_m import relative_gains
from branchtune.evaluation.references import Reference
from branchtune.report.table import Column, comparison
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import arrow, signed
from branchtune.tables.outcome import Outcome
from branchtune.tasks.task import Task

Metrics = Mapping[str, Mapping[str, float]]


def runs_outcome(columns: Sequence[Column], reference: Reference | None) -> Outcome:
    """Runs beside each other; a record is one metric of one task of one run, the loss among them."""
    records = []
    for results in (column.results for column in columns):
        run = {"run": results.name, "method": results.method, "seed": results.seed}
        for task, values in results.metrics.items():
            directed = results.headline[task], results.higher_is_better[task]
            records += [run | _record(task, name, value, *directed, reference) for name, value in values.items()]
    notes = [] if reference is None else [f"Δm divides by the reference {reference.id!r}"]
    notes += _without_label(*(column.results.metrics for column in columns))
    content = {
        "format": 1,
        "reference": _reference(reference),
        "runs": [column.results.to_json() for column in columns],
    }
    return Outcome([comparison(columns, reference)], notes, records, content)


def evaluation_outcome(
    run: str, metrics: Metrics, before: Metrics, tasks: Mapping[str, Task], reference: Reference | None
) -> Outcome:
    """The metrics of a model; a record is one metric of one task.

    Args:
        run: its directory.
        metrics: by task.
        before: those that the run ended with, shown beside them where given.
        tasks: by name.
        reference: what gains and delta_m divide by, or None.
    """
    records = []
    for task, values in metrics.items():
        directed = tasks[task].headline, tasks[task].higher_is_better
        for name, value in values.items():
            was = {"before": before.get(task, {}).get(name)} if before else {}
            records.append({"run": run} | _record(task, name, value, *directed, reference) | was)
    gains = [_or_nan(record["gain_percent"]) for record in records if record["headline"]]
    mean = math.fsum(gains) / len(gains) if reference and all(map(math.isfinite, gains)) else None
    notes = [f"Δm {signed(mean)} % over the reference {reference.id!r}"] if reference else []
    notes += _without_label(metrics)
    content = {
        "format": 1,
        "run": run,
        "reference": _reference(reference),
        "delta_m": mean,
        "metrics": metrics,
        **({"before": before} if before else {}),
    }
    return Outcome([_evaluation_cells(records, bool(before), reference is not None)], notes, records, content)


def _without_label(*runs: Metrics) -> list[str]:
    """Why a task's metrics are missing, where all of them are."""
    empty = {task for run in runs for task, values in run.items() if all(map(math.isnan, values.values()))}
    return [f"-: no label of {', '.join(sorted(empty))} among the evaluated samples"] if empty else []


def _evaluation_cells(records: Sequence[Mapping[str, Any]], with_before: bool, with_reference: bool) -> Cells:
    heading = ["task", "metric", "value", *(["was"] if with_before else [])]
    heading += ["reference", "gain %"] if with_reference else []
    body = []
    for record in records:
        direction = f" {arrow(record['higher_is_better'])}" if record["headline"] else ""
        row = [record["task"], f"{record['metric']}{direction}", _decimals(record["value"])]
        row += [_decimals(record["before"])] if with_before else []
        if with_reference:
            headline = record["headline"]
            row += [_decimals(record["reference_value"]), signed(record["gain_percent"])] if headline else ["", ""]
        body.append(row)
    ends = [index for index, (row, after) in enumerate(pairwise(body)) if row[0] != after[0]]
    return Cells("", heading, body, ends, labels=2)


def _record(
    task: str, metric: str, value: float, headline: str, higher_is_better: bool, reference: Reference | None
) -> dict[str, Any]:
    """Direction, reference and gain in percent are those of the task's headline metric."""
    first = metric == headline
    base = reference.metrics.get(task) if reference and first else None
    gain = None
    if base is not None and math.isfinite(value):
        gain = relative_gains({task: value}, {task: base}, {task: higher_is_better})[task]
    return {
        "task": task,
        "metric": metric,
        "value": value,
        "headline": first,
        "higher_is_better": higher_is_better if first else None,
        "reference": reference.id if reference and first else None,
        "reference_value": base,
        "gain_percent": gain,
    }


def _reference(reference: Reference | None) -> dict[str, Any] | None:
    return None if reference is None else {"id": reference.id, "metrics": reference.metrics}


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _decimals(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"
