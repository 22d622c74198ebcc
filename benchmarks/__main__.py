"""python -m benchmarks [GROUP ...]: time branchtune against its limits and its peers, and check the goals."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import shlex
import sys
import warnings
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory is quiet

import torch

from benchmarks.bench import Bench
from branchtune.atomic import write_json
from branchtune.run.manifest import hardware, versions

GROUPS = ("inference", "against_peft", "affinity_cost", "scaling", "activations", "compiled", "startup")
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", default=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=9, help="of every timing")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/<device>.json")
    options = parser.parse_args()
    unknown = set(options.groups) - set(GROUPS)
    if unknown or options.rounds < 2:
        parser.error(f"unknown group {min(unknown)!r}" if unknown else "give at least 2 rounds, for quartiles")
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    bench = Bench(device, options.rounds, bfloat16=device.type == "cuda", say=lambda line: print(line, flush=True))
    for group in options.groups:
        importlib.import_module(f"benchmarks.{group}").measure(bench)
    print("\n" + summary(bench))
    command = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    content = {
        "command": command,
        "hardware": hardware(device),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "goals": [goal.to_json() for goal in bench.goals],
        "measured": bench.measured,
    }
    out = options.out or RESULTS / f"{device.type}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, content)
    print(f"wrote {out}")
    return 0


def summary(bench: Bench) -> str:
    """Every goal with its bound and value, the missed ones first."""
    lines = [
        f"{'pass' if goal.passed else 'MISS'}  {goal.value:8.3g}  "
        f"{'>=' if goal.at_least else '<='} {goal.wanted:<6g} {goal.name}"
        for goal in sorted(bench.goals, key=lambda goal: goal.passed)
    ]
    passed = sum(goal.passed for goal in bench.goals)
    return "\n".join([f"goals: {passed} of {len(bench.goals)} pass", *lines])


if __name__ == "__main__":
    sys.exit(main())
