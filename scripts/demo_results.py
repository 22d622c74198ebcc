"""Train every column of the demo, write the committed results, and summarise the seeds.

    python scripts/demo_results.py --seeds 0 1 2

Writes the single-task reference (src/branchtune/references/scenes_swin.json), the columns that the demo shows without
training them (src/branchtune/demo/results.json, first seed) and every run's numbers (results/scenes_demo.json, with
a table beside it). Interrupted, the same command continues.
"""

from __future__ import annotations

import argparse
import statistics
from importlib.resources import files
from pathlib import Path

from branchtune.atomic import write_json, write_text
from branchtune.demo.demo import TITLES
from branchtune.evaluation.delta_m import delta_m
from branchtune.evaluation.references import Reference
from branchtune.progress import Reporter
from branchtune.run.fit import fit
from branchtune.run.reference import train_reference
from branchtune.run.results import Results
from branchtune.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(str(files("branchtune")))
COLUMNS = ("branched", "shared", "separate", "decoders")
# The comparison that the demo makes is branched against shared; the others are trained with the first seed.
EVERY_SEED = ("branched", "shared")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--reference-seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--columns", nargs="+", default=list(COLUMNS), help="train only these, and stop")
    parser.add_argument("--output", default="runs/demo_results")
    arguments = parser.parse_args()
    reporter = Reporter(quiet=True)
    settings = Settings.load(PACKAGE / "demo" / "scenes.yaml", [f"--output={arguments.output}"])
    runs: dict[str, list[Results]] = {method: [] for method in COLUMNS}
    for seed in arguments.seeds:
        decoders_from = None
        for method in arguments.columns:
            if seed != arguments.seeds[0] and method not in EVERY_SEED:
                continue
            name = f"seed{seed}/{method}"
            run = settings.but(method=method, seed=seed, name=name, reference=None)
            runs[method].append(fit(run, reporter, decoders_from))
            decoders_from = decoders_from or Path(arguments.output) / name
    if set(arguments.columns) != set(COLUMNS):
        return
    reference = train_reference(settings, arguments.reference_seeds, "scenes_swin", reporter)
    reference.save(PACKAGE / "references" / "scenes_swin.json")
    runs = {method: [r.compared_with(reference) for r in results] for method, results in runs.items()}
    demo = {method: results[0].to_json() for method, results in runs.items()}
    config = settings.but(output="runs").text()
    write_json(PACKAGE / "demo" / "results.json", {"format": 1, "config": config, "columns": demo})
    every = {method: [r.to_json() for r in results] for method, results in runs.items()}
    command = f"python scripts/demo_results.py --seeds {' '.join(map(str, arguments.seeds))}"
    write_json(
        ROOT / "results" / "scenes_demo.json", {"format": 1, "command": command, "config": config, "runs": every}
    )
    text = summary(runs, reference)
    write_text(
        ROOT / "results" / "scenes_demo.md", f"{text}\n\nMade by `{command}`; raw numbers in scenes_demo.json.\n"
    )
    print(text)


def summary(runs: dict[str, list[Results]], reference: Reference) -> str:
    """A Markdown table of mean and standard deviation over seeds, and the paired difference to one shared set."""
    tasks = runs["branched"][0].headline
    lines = ["| | " + " | ".join([*(f"{t} {m}" for t, m in tasks.items()), "Δm %"]) + " |"]
    lines.append("|" + "---|" * (len(tasks) + 2))
    gains: dict[str, list[float]] = {}
    for method, results in runs.items():
        cells = [_spread([r.heads[task] for r in results]) for task in tasks]
        gains[method] = [delta_m(r.heads, reference.metrics, r.higher_is_better) for r in results]
        lines.append(
            f"| {TITLES[method].replace(chr(10), ' ')} | " + " | ".join([*cells, _spread(gains[method], 2)]) + " |"
        )
    values = [f"{reference.metrics[task]:.3f}" for task in tasks]
    lines.append("| single-task reference | " + " | ".join([*values, "0"]) + " |")
    seeds = [r.seed for r in runs["branched"]]
    for other in ("shared", "separate", "decoders"):
        differences = [a - b for a, b in zip(gains["branched"], gains[other], strict=False)]
        lines.append("")
        lines.append(
            f"Δm of branched minus {other}, seeds {seeds[: len(differences)]}: {_spread(differences, 2)} points."
        )
    return "\n".join(lines)


def _spread(values: list[float], digits: int = 3) -> str:
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


if __name__ == "__main__":
    main()
