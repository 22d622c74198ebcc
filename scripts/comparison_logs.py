"""What the runs of a comparison wrote while they trained, in three small files to keep beside comparison.json.

python scripts/comparison_logs.py RUNS OUT

RUNS is the comparison's folder, such as runs/nyud. OUT gets metrics.log, every run's metrics.csv; plans.log, measured
affinity and tree of every planned run; and conflict.csv, by run, level and pair of tasks that share a node there the
mean cosine of their gradients over the epochs, with the standard error of that mean.
"""

from __future__ import annotations

import csv
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from branchtune.atomic import write_text
from branchtune.errors import UserError
from branchtune.tables.csv_text import csv_text

FIRST, LAST = "affinity on ", "train "  # how the lines of a plan begin, and those after it


def main(runs: Path, out: Path) -> None:
    found = {path.parent.relative_to(runs).as_posix(): path.parent for path in sorted(runs.rglob("metrics.csv"))}
    if not found:
        raise UserError(f"{runs} holds no run: give the folder that `branchtune compare` wrote")
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "metrics.log", headed({name: (run / "metrics.csv").read_text() for name, run in found.items()}))
    planned = {name: plan((run / "log.txt").read_text()) for name, run in found.items()}
    write_text(out / "plans.log", headed({name: text for name, text in planned.items() if text}))
    recorded = {name: run / "conflict.csv" for name, run in found.items() if (run / "conflict.csv").exists()}
    write_text(out / "conflict.csv", csv_text([row for name, file in recorded.items() for row in cosines(name, file)]))


def headed(texts: dict[str, str]) -> str:
    return "".join(f"== {name}\n{text}" for name, text in texts.items())


def plan(log: str) -> str:
    """From the measured affinity to the costs of the tree; empty for a run that planned nothing."""
    kept: list[str] = []
    for line in log.splitlines(keepends=True):
        if line.startswith(FIRST):
            kept = []  # of an interrupted measurement
        elif kept and line.startswith(LAST):
            break
        if kept or line.startswith(FIRST):
            kept.append(line)
    return "".join(kept)


def cosines(name: str, file: Path) -> list[dict[str, Any]]:
    by_pair: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with file.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            by_pair[row["level"], row["task_a"], row["task_b"]].append(float(row["cosine"]))
    return [
        {
            "run": name,
            "level": level,
            "task_a": a,
            "task_b": b,
            "epochs": len(values),
            "mean": f"{statistics.mean(values):.4f}",
            "standard_error": f"{statistics.stdev(values) / len(values) ** 0.5:.4f}" if len(values) > 1 else "",
        }
        for (level, a, b), values in by_pair.items()
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
