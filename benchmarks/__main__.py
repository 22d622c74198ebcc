"""python -m benchmarks [GROUP ...]: time branchtune against its limits and its peers, and check the goals."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler that counts memory is quiet

import torch

from benchmarks.bench import Bench
from benchmarks.goal import Goal
from benchmarks.page import write_page
from benchmarks.provenance import commit, provenance
from benchmarks.results import RESULTS, Results

#: the quickest first
GROUPS = (
    "startup",
    "activations",
    "optimisations",
    "scaling",
    "affinity_cost",
    "recipes",
    "against_peft",
    "training",
    "inference",
    "compiled",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", default=GROUPS, metavar="GROUP", help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help="of every timing; default: as many as fit into its time")
    parser.add_argument("--small", action="store_true", help="shrunken backbones, to try it out: needs --out")
    parser.add_argument("--out", type=Path, help="JSON file; default: benchmarks/results/<device>.json")
    parser.add_argument("--resume", action="store_true", help="skip groups that have run at this commit")
    options = parser.parse_args(arguments)
    unknown = set(options.groups) - set(GROUPS)
    if unknown:
        parser.error(f"unknown group {min(unknown)!r}: one of {', '.join(GROUPS)}")
    if options.rounds is not None and options.rounds < 2:
        parser.error("give at least 2 rounds, for quartiles")
    if options.small and options.out is None:
        parser.error("--small needs --out: its numbers say nothing about branchtune")
    warnings.simplefilter("ignore")
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    results = Results(options.out or RESULTS / f"{device.type}.json")
    failed = []
    for group in options.groups:
        if options.resume and results.done(group, commit(), options.rounds):
            print(f"{group}: done at this commit", flush=True)
        elif not run(group, device, options.rounds, options.small, results):
            failed.append(group)
    goals = results.goals()
    print("\n" + summary([goal for group in options.groups for goal in goals[group]]))
    print(f"wrote {results.path}")
    if options.out is None:
        print(f"wrote {write_page()}")
    if failed:
        print(f"FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(group: str, device: torch.device, rounds: int | None, small: bool, results: Results) -> bool:
    """Whether the group came to its end; what it found until then is written in any case."""
    bench = Bench(device, rounds, small, say=lambda line: print(line, flush=True))
    entry, start = provenance(device, small), time.perf_counter()
    error: str | None = None
    try:
        importlib.import_module(f"benchmarks.{group}").measure(bench)
    except Exception:
        error = traceback.format_exc()
        print(f"{group} FAILED\n{error}", file=sys.stderr, flush=True)
    entry |= {"rounds": rounds, "seconds": round(time.perf_counter() - start, 1), "error": error}
    entry |= {"goals": [goal.to_json() for goal in bench.goals], "measured": bench.measured}
    results.put(group, entry)
    return error is None


def summary(goals: list[Goal]) -> str:
    """Every goal with its bound and value, the missed ones first."""
    order = ["MISS", "unclear", "pass"]
    lines = [
        f"{goal.verdict:<7}  {goal.value:8.3g}  {'>=' if goal.at_least else '<='} {goal.wanted:<6g} {goal.name}"
        for goal in sorted(goals, key=lambda goal: order.index(goal.verdict))
    ]
    passed = sum(goal.verdict == "pass" for goal in goals)
    return "\n".join([f"goals: {passed} of {len(goals)} pass", *lines])


if __name__ == "__main__":
    sys.exit(main())
