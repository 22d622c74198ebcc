"""benchmarks/results/README.md from the files of results: `python -m benchmarks.page`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.explained import current_profile, sentences
from benchmarks.goal import Goal
from benchmarks.results import RESULTS, Results
from branchtune.atomic import write_text
from branchtune.tables.cells import Cells

HEAD = """# Benchmark results

Made by `make bench` from the JSON files beside it; [benchmarks/README.md](../README.md) says what is compared and how.
A value is the median over rounds, with its quartiles; it is `unclear` where the bound lies between them. `operations`
is the same quotient of floating-point operations, where arithmetic decides it. What does not pass links a profile of
both sides at the same commit; why it is missed is said below the table.
"""
HEADING = ["goal", "wanted", "measured", "quartiles", "operations", "verdict"]
HELD = ["comparison", "way", "time", "held MiB", "held"]
NOTES = {
    "training": "Four PEFT models keep four backbones resident, and their memory counts all four. One PEFT backbone "
    "with switched adapters has no goal; it is in the second table: time and memory of every way as multiples of ours.",
}


def page(folder: Path = RESULTS) -> str | None:
    """The page for all `<device>.json` of a folder; None where there is none."""
    found = sorted(folder.glob("*.json"))
    if not found:
        return None
    return "\n".join([HEAD, *(_device(path) for path in found)])


def write_page(folder: Path = RESULTS) -> Path:
    """Write it, and say where."""
    path, text = folder / "README.md", page(folder)
    if text is not None:
        write_text(path, text)
    return path


def _device(path: Path) -> str:
    results = Results(path)
    counts = Counter(goal.verdict for goals in results.goals().values() for goal in goals)
    head = f"## {path.stem}\n\n" + ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("pass", "unclear", "MISS"))
    parts = [head]
    for group, entry in results.groups().items():
        parts.append(f"### {group}\n\n{_origin(entry)}")
        if group in NOTES:
            parts.append(NOTES[group])
        if entry["error"] is not None:
            parts.append(f"FAILED: `{entry['error'].strip().splitlines()[-1]}`")
        goals = results.goals()[group]
        if goals:
            lines = [_line(path, goal, entry["commit"]) for goal in goals]
            parts.append(Cells("", HEADING, lines, labels=1).markdown())
        held = _held(entry["measured"])
        if held:
            parts.append(Cells("", HELD, held, labels=2).markdown())
        reasons = _reasons(goals, sentences(path.parent, path.stem))
        if reasons:
            parts.append("\n".join(reasons))
    return "\n\n".join(parts) + "\n"


def _origin(entry: dict[str, Any]) -> str:
    machine, versions = entry["machine"], entry["versions"]
    memory = f"{machine['memory_bytes'] / 2**30:.0f} GiB"
    load = machine["load_average"][0]
    commit = entry["commit"] or "an unknown commit"
    used = ", ".join(f"{package} {versions[package]}" for package in ("torch", "timm", "peft"))
    return (
        f"`{entry['command']}`, {entry['date']}, {commit}; {entry['hardware']}; {machine['cores']} "
        f"cores, {memory}, load {load:g} at the start; {used}; {entry['seconds']:.0f} s"
    )


def _line(path: Path, goal: Goal, commit: str | None) -> list[str]:
    quartiles = "-" if goal.low is None or goal.high is None else f"{goal.low:.3g} to {goal.high:.3g}"
    counted = "-" if goal.counted is None else f"{goal.counted:.3g}"
    return [goal.name, goal.bound, f"{goal.value:.3g}", quartiles, counted, _verdict(path, goal, commit)]


def _held(measured: list[dict[str, Any]]) -> list[list[str]]:
    """Time and memory with what is resident, as multiples of ours, of the comparisons that counted both."""
    times = {(entry["what"], entry["name"]): entry["median"] for entry in measured if "median" in entry}
    return [
        [
            entry["what"],
            entry["name"],
            f"{times[entry['what'], entry['name']]:.2f}",
            f"{entry['held_bytes'] / 2**20:.0f}",
            f"{entry['held_over_ours']:.2f}",
        ]
        for entry in measured
        if "held_bytes" in entry
    ]


def _verdict(path: Path, goal: Goal, commit: str | None) -> str:
    if goal.verdict == "pass" or goal.what is None:
        return goal.verdict
    profile = current_profile(path, goal, commit)
    if profile is not None:
        return f"[{goal.verdict}]({profile.relative_to(path.parent).as_posix()})"
    return "MISS, no profile" if goal.verdict == "MISS" else goal.verdict


def _reasons(goals: list[Goal], said: dict[str, str]) -> list[str]:
    """A line for every sentence, with the goals that it explains."""
    explained: dict[str, list[str]] = {}
    for goal in goals:
        sentence = said.get(goal.name)
        if not goal.met or (goal.verdict == "unclear" and sentence):
            explained.setdefault(sentence or "not explained yet", []).append(goal.name)
    return [f"- {_together(names)}: {sentence}" for sentence, names in explained.items()]


def _together(names: list[str]) -> str:
    """Names of one beginning without its repetition: `a: x`, `a: y` -> `a (x; y)`."""
    head, *others = {name.partition(": ")[0] for name in names}
    if len(names) == 1 or others:
        return "; ".join(names)
    return f"{head} ({'; '.join(name.partition(': ')[2] for name in names)})"


if __name__ == "__main__":
    print(f"wrote {write_page()}")
