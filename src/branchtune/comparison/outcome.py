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
    notes = [
        f"Δm divides by {comparison.reference.id!r} (mean over the same seeds). Made by `{comparison.command}` on "
        f"{provenance(comparison)}.",
        *comparison.notes,
    ]
    summary = {row.method: asdict(row) for row in rows(comparison)}
    records = [_record(comparison, row) for row in rows(comparison)]
    return Outcome(tables(comparison), notes, records, {**comparison.to_json(), "summary": summary})


def provenance(comparison: Comparison, every_package: bool = False) -> str:
    """Processors, versions and commits of all runs, single-task ones too: those that went on later may have others.

    Args:
        comparison: whose runs they are.
        every_package: not only torch.
    """
    runs = [(r.hardware, r.versions) for by_seed in comparison.runs.values() for r in by_seed]
    single = comparison.reference.settings["runs"]
    runs += [(r["hardware"], r["versions"]) for by_seed in single.values() for r in by_seed]
    found = [" or ".join(dict.fromkeys(hardware for hardware, _ in runs))]
    known = dict.fromkeys(name for _, made in runs for name in made if name not in ("branchtune", "commit"))
    for name in (*(known if every_package else ["torch"]), "branchtune"):
        found.append(f"{name} " + " or ".join(dict.fromkeys(made[name] for _, made in runs if name in made)))
    commits = list(dict.fromkeys(made["commit"] for _, made in runs if "commit" in made))
    if commits:
        found[-1] += f" at commit{'s' if len(commits) > 1 else ''} {', '.join(commits)}"
    return ", ".join(found)


def _record(comparison: Comparison, row: Row) -> dict[str, Any]:
    record: dict[str, Any] = {"method": row.method, "reference": comparison.reference.id, "seeds": row.delta_m.count}
    for name, spread in {**row.metrics, "delta_m": row.delta_m, "train_seconds": row.seconds}.items():
        record |= {f"{name}_mean": spread.mean, f"{name}_deviation": spread.deviation}
    record |= {f"parameters_{owner}": number for owner, number in row.parameters.items()}
    record |= {f"macs_{part}": number for part, number in row.macs.items()}
    record["ms_per_image"] = row.ms_per_image
    groups = "-".join(map(str, row.groups))
    return record | {"train_memory": row.memory, "groups": groups, "lr_factor": comparison.tuning[row.method].factor}
