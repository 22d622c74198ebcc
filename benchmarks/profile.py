"""python -m benchmarks.profile [NAME ...]: where both sides of a goal spend their time; default: MISS, unclear."""

from __future__ import annotations

import argparse
import cProfile
import importlib
import io
import os
import pstats
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "99")

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.bench import USUAL, Bench, Compared
from benchmarks.explained import profile_path, unexplained
from benchmarks.goal import Goal
from benchmarks.page import write_page
from benchmarks.provenance import provenance
from benchmarks.results import RESULTS, Results
from benchmarks.timing import Call, Effort
from branchtune.atomic import write_text

ROWS = 30


class _Done(Exception):
    """The comparison that was asked for has been profiled."""


class Profiler(Bench):
    """Profiles one comparison of a group instead of timing all of them.

    Args:
        goal: whose comparison and sides they are.
    """

    def __init__(self, device: torch.device, goal: Goal, small: bool = False) -> None:
        super().__init__(device, small=small, say=lambda line: None)
        self.wanted, self.text = goal, ""

    def wants(self, what: str) -> bool:
        return what == self.wanted.what

    def compare(
        self, what: str, calls: Mapping[str, Call], base: str, memory: bool = False, effort: Effort = USUAL
    ) -> Compared:
        parts = [f"{side}\n{'=' * len(side)}\n\n{tables(calls[side], self.device)}" for side in self.wanted.sides]
        self.text = "\n\n".join([what, *parts]) + "\n"
        raise _Done


def tables(call: Call, device: torch.device) -> str:
    """The operators of a call by their own time and by their own memory, and the functions of Python by their own time.

    A call that knows better, by a method `table`, says it itself.
    """
    if hasattr(call, "table"):
        return str(call.table())
    call()
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities, profile_memory=True) as record:
        call()
    averages = record.key_averages()
    kind = "cuda" if device.type == "cuda" else "cpu"
    orders = ((f"self_{kind}_time_total", "own time"), (f"self_{kind}_memory_usage", "own memory"))
    found = [f"Operators by {what}\n\n{averages.table(sort_by=key, row_limit=ROWS)}" for key, what in orders]
    return "\n\n".join([*found, f"Python by own time\n\n{_python(call)}"])


def _python(call: Call) -> str:
    record, text = cProfile.Profile(), io.StringIO()
    record.runcall(call)
    pstats.Stats(record, stream=text).strip_dirs().sort_stats("tottime").print_stats(ROWS)
    return text.getvalue().strip()


def _head(goal: Goal, device: torch.device, small: bool) -> str:
    """Where the profile comes from; the page links it beside results of the same commit only."""
    origin = provenance(device, small)
    used = ", ".join(f"{package} {origin['versions'][package]}" for package in ("torch", "timm", "peft"))
    lines = {
        "goal": f"{goal.name}, {goal.bound}; measured {goal.value:.3g}, {goal.verdict}",
        "commit": origin["commit"],
        "date": origin["date"],
        "hardware": f"{origin['hardware']}, {origin['machine']['threads']} threads",
        "versions": used,
    }
    return "\n".join(f"{key}: {text}" for key, text in lines.items())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of goals, as the page of results has them")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--results", type=Path, help="JSON file; default: benchmarks/results/<device>.json")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    results = Results(options.results or RESULTS / f"{device.type}.json")
    goals = {goal.name: (group, goal) for group, found in results.goals().items() for goal in found if goal.what}
    unknown = set(options.names) - set(goals)
    if unknown:
        parser.error(f"{results.path} has no goal {min(unknown)!r} that compares times or memory: run its group first")
    names = options.names or [name for name, (_, goal) in goals.items() if goal.verdict != "pass"]
    warnings.simplefilter("ignore")
    for name in names:
        group, goal = goals[name]
        assert goal.what is not None
        bench = Profiler(device, goal, results.groups()[group]["small"])
        try:
            importlib.import_module(f"benchmarks.{group}").measure(bench)
        except _Done:
            path = profile_path(results.path.parent, results.path.stem, goal.name)
            write_text(path, f"{_head(goal, device, bench.small)}\n\n{bench.text}")
            print(f"wrote {path}", flush=True)
    if not names:
        print("all goals that compare times or memory pass")
    for line in unexplained(results.path):
        print(line)
    if options.results is None:
        print(f"wrote {write_page()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
