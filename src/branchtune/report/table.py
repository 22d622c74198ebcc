"""The comparison table: one column per model, one row per number."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from branchtune.evaluation.references import Reference
from branchtune.run.results import Results
from branchtune.tables.cells import Cells
from branchtune.tables.numbers import arrow, count, number, signed


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


def comparison(columns: Sequence[Column], reference: Reference | None) -> Cells:
    """Headline metrics, delta_m, trainable parameters by owner, work and time; five columns fit in 80 characters.

    Args:
        columns: of the same tasks; at least one.
        reference: shown as the first column and named by the caller; None for no such column.
    """
    heading = ["", *(["single-\ntask"] if reference else [])]
    heading += [column.title + (" *" if column.committed else "") for column in columns]
    parts = sections(columns, reference)
    ends = [total - 1 for total in accumulate(map(len, parts))]
    return Cells("", heading, [row for part in parts for row in part], ends)


def sections(columns: Sequence[Column], reference: Reference | None) -> list[list[list[str]]]:
    """The cells of `comparison`: rows by what they are about."""
    results = [column.results for column in columns]
    settings = reference.settings if reference else {}

    def row(label: str, base: str, cells: Iterable[str]) -> list[str]:
        return [label, *([base] if reference else []), *cells]

    metrics = [
        row(
            f"{task} {metric} {arrow(results[0].higher_is_better[task])}",
            number(reference.metrics.get(task) if reference else None),
            [number(r.value_of(task, metric)) for r in results],
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
