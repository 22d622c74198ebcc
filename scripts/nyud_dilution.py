"""What semseg loses by sharing on NYU: its training loss and mIoU, with others in its group and without.

python scripts/nyud_dilution.py [results/nyud]

Reads of the folder metrics.log (every run's metrics.csv), and for the trees comparison.json and, where it is there,
cut_asked_for.json. Prints the table of its README, which a test holds against it. Trees that turned out equal gave
equal numbers: such runs count once.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path

NYUD = Path(__file__).resolve().parents[1] / "results" / "nyud"
TASK = "semseg"


def runs(folder: Path) -> dict[str, tuple[float, float]]:
    """By name of the run its last training loss and mIoU of semseg; without runs that do not train the backbone."""
    found = {}
    for part in (folder / "metrics.log").read_text(encoding="utf-8").split("== ")[1:]:
        name, *lines = part.splitlines()
        rows = [row for row in csv.DictReader(lines) if row["task"] == TASK]
        if rows and not name.startswith("decoders"):
            found[name] = float(rows[-1]["train_loss"]), float(rows[-1]["miou"])
    return found


def alone(folder: Path) -> set[str]:
    """The runs in which semseg has no other task in its group at the last level."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    asked_for = folder / "cut_asked_for.json"
    cut = json.loads(asked_for.read_text(encoding="utf-8")) if asked_for.exists() else []
    trees = {r["name"].partition("/")[2]: r["tree"] for results in comparison["runs"].values() for r in results}
    trees |= {f"cut-asked-for/{r['name'].partition('/')[2]}": r["tree"] for r in cut}
    return {name for name in runs(folder) if name not in trees or [TASK] in trees[name]["levels"][-1]}


def table(folder: Path = NYUD) -> str:
    own = alone(folder)
    found = dict(sorted(runs(folder).items()))
    distinct = {numbers: name for name, numbers in found.items()}
    once = {name: found[name] for name in distinct.values()}
    lines = ["| semseg in the last level | rate | runs | training loss | mIoU |", "|---|---:|---:|---:|---:|"]
    for title, inside in (("alone (single, one set per task, {semseg} apart)", True), ("with others", False)):
        for rate in ("0.33", "1"):
            names = [name for name in once if (name in own) == inside and f"-x{rate}" in name]
            if names:
                losses, scores = zip(*(once[name] for name in names), strict=True)
                lines.append(f"| {title} | x {rate} | {len(names)} | {_spread(losses)} | {_spread(scores)} |")
    at_one = [numbers for name, numbers in once.items() if "-x1" in name]
    correlations = [statistics.correlation(*zip(*numbers, strict=True)) for numbers in (once.values(), at_one)]
    note = (
        f"(mean and deviation over runs; correlation of the two over all {len(once)}: {correlations[0]:.2f}, over the "
        f"{len(at_one)} at x 1: {correlations[1]:.2f})"
    )
    return "\n".join([*lines, "", note])


def _spread(values: tuple[float, ...]) -> str:
    return f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}"


if __name__ == "__main__":
    print(table(*map(Path, sys.argv[1:2])))
