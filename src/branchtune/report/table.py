"""The comparison table: one column per model, one row per number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from branchtune.evaluation.references import Reference
from branchtune.run.results import Results


@dataclass(frozen=True)
class Column:
    """One model of the comparison.

    Attributes:
        title: of the column.
        results: its numbers.
        committed: whether they come from results that ship with the package rather than from this machine.
    """

    title: str
    results: Results
    committed: bool = False


def comparison(columns: Sequence[Column], reference: Reference | None) -> Table:
    """Tasks' headline metrics, delta_m, trainable parameters by owner, work and time, for every column."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    if reference is not None:
        table.add_column("single-task\nreference", justify="right")
    for column in columns:
        table.add_column(column.title + (" *" if column.committed else ""), justify="right")
    for row in rows(columns, reference):
        table.add_row(*row)
    return table


def rows(columns: Sequence[Column], reference: Reference | None) -> list[list[str]]:
    """The cells of `comparison`, row by row."""
    first = columns[0].results
    found = []
    for task, metric in first.headline.items():
        arrow = "↑" if first.higher_is_better[task] else "↓"
        base = [_number(reference.metrics.get(task))] if reference else []
        found.append([f"{task} {metric} {arrow}", *base, *(_number(c.results.heads.get(task)) for c in columns)])
    blank = [""] if reference else []
    if reference is not None:
        found.append(["delta_m %", "0.00", *(_signed(c.results.delta_m) for c in columns)])
    for label, owner in (
        ("adapters", "adapters"),
        ("extras", "extras"),
        ("decoders", "decoders"),
        ("backbone", "backbone"),
    ):
        settings = reference.settings.get("parameters", {}) if reference else {}
        values = [c.results.parameters[owner] for c in columns]
        if owner in ("adapters", "decoders") or any(values) or settings.get(owner):
            base = [_count(settings.get(owner))] if reference else []
            found.append([f"train {label}", *base, *(_count(value) for value in values)])
    for label, part in (("MACs backbone", "backbone"), ("MACs decoders", "decoders")):
        settings = reference.settings.get("macs", {}) if reference else {}
        base = [_count(settings.get(part))] if reference else []
        found.append([label, *base, *(_count(c.results.macs[part]) for c in columns)])
    base = [_number(reference.settings.get("ms_per_image"))] if reference else []
    found.append(["ms per image", *base, *(_number(c.results.ms_per_image) for c in columns)])
    found.append(["groups", *blank, *("-".join(map(str, c.results.groups)) for c in columns)])
    return found


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _count(value: int | None) -> str:
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return str(value)
