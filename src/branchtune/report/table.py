"""The comparison table: one column per model, one row per number."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    """Headline metrics, delta_m, trainable parameters by owner, work and time; five columns fit in 80 characters.

    Args:
        columns: of the same tasks; at least one.
        reference: shown as the first column and named by the caller; None for no such column.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    if reference is not None:
        table.add_column("single-\ntask", justify="right", no_wrap=True)
    for column in columns:
        table.add_column(column.title + (" *" if column.committed else ""), justify="right", no_wrap=True)
    for section in sections(columns, reference):
        for row in section:
            table.add_row(*row)
        table.add_section()
    return table


def sections(columns: Sequence[Column], reference: Reference | None) -> list[list[list[str]]]:
    """The cells of `comparison`: rows by what they are about."""
    results = [column.results for column in columns]
    settings = reference.settings if reference else {}

    def row(label: str, base: str, cells: Iterable[str]) -> list[str]:
        return [label, *([base] if reference else []), *cells]

    metrics = [
        row(
            f"{task} {metric} {'↑' if results[0].higher_is_better[task] else '↓'}",
            number(reference.metrics.get(task) if reference else None),
            [number(r.heads.get(task)) for r in results],
        )
        for task, metric in results[0].headline.items()
    ]
    if reference is not None:
        metrics.append(row("Δm %", "0", [signed(r.delta_m) for r in results]))
    parameters, macs = settings.get("parameters", {}), settings.get("macs", {})
    trained = [
        row(f"params {owner}", count(parameters.get(owner)), [count(r.parameters[owner]) for r in results])
        for owner in ("adapters", "extras", "decoders", "backbone")
        if owner in ("adapters", "decoders") or parameters.get(owner) or any(r.parameters[owner] for r in results)
    ]
    cost = [
        row(f"MACs {part}", count(macs.get(part)), [count(r.macs[part]) for r in results])
        for part in ("backbone", "decoders")
    ]
    cost.append(row("ms per image", number(settings.get("ms_per_image")), [number(r.ms_per_image) for r in results]))
    cost.append(row("groups per level", "", ["-".join(map(str, r.groups)) for r in results]))
    return [metrics, trained, cost]


def number(value: float | None) -> str:
    """Three decimals, two from 10 on; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.3f}"


def signed(value: float | None) -> str:
    """Two decimals with a sign; a dash for None."""
    return "-" if value is None else f"{value:+.2f}"


def count(value: int | None) -> str:
    """Three digits and a unit: 271k, 1.00M; a dash for None."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        scaled = value / size
        if scaled >= 0.9995:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return str(value)
