"""A comparison as the command line prints it and as its files hold it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from branchtune.comparison.result import Comparison
from branchtune.comparison.summary import Row, rows
from branchtune.comparison.tables import tables
from branchtune.tables.outcome import Outcome


def outcome(comparison: Comparison) -> Outcome:
    """All tables, with what they count and how to remake them; a record is one method."""
    first = next(iter(comparison.runs.values()))[0]
    versions = first.versions
    code = " at commit " + versions["commit"] if "commit" in versions else ""
    note = (
        f"Δm divides by {comparison.reference.id!r} (mean over the same seeds). Made by `{comparison.command}` on "
        f"{first.hardware}, torch {versions['torch']}, branchtune {versions['branchtune']}{code}."
    )
    summary = {row.method: asdict(row) for row in rows(comparison)}
    records = [_record(comparison, row) for row in rows(comparison)]
    return Outcome(tables(comparison), [note], records, {**comparison.to_json(), "summary": summary})


def _record(comparison: Comparison, row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"method": row.method, "reference": comparison.reference.id, "seeds": row.delta_m.count}
    for name, spread in {**row.metrics, "delta_m": row.delta_m, "train_seconds": row.seconds}.items():
        record |= {f"{name}_mean": spread.mean, f"{name}_deviation": spread.deviation}
    record |= {f"parameters_{owner}": number for owner, number in row.parameters.items()}
    record |= {f"macs_{part}": number for part, number in row.macs.items()}
    record["ms_per_image"] = row.ms_per_image
    groups = "-".join(map(str, row.groups))
    return record | {"train_memory": row.memory, "groups": groups, "lr_factor": comparison.tuning[row.method].factor}
