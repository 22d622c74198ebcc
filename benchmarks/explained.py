"""Why a goal is missed: a sentence that a person writes, and a profile of both sides at the measured commit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.goal import Goal
from benchmarks.results import Results

NAME = "explanations.yaml"


def sentences(folder: Path, device: str) -> dict[str, str]:
    """By goal, from the file beside the results."""
    path = folder / NAME
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    return dict((content or {}).get(device) or {})


def profile_path(folder: Path, device: str, goal: str) -> Path:
    """Where the profile of a goal lies."""
    words = "".join(letter if letter.isalnum() else " " for letter in goal.lower()).split()
    return folder / "profiles" / device / f"{'-'.join(words)}.txt"


def current_profile(results: Path, goal: Goal, commit: str | None) -> Path | None:
    """The profile of a goal of these results; None where there is none, or one of another commit than was measured."""
    path = profile_path(results.parent, results.stem, goal.name)
    if not path.exists() or f"commit: {commit}" not in path.read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        return None
    return path


def unexplained(path: Path) -> Iterator[str]:
    """What these results leave unsaid: misses without a sentence, or without a profile where times were compared."""
    results, known = Results(path), set()
    said = sentences(path.parent, path.stem)
    for group, goals in results.goals().items():
        commit = results.groups()[group]["commit"]
        for goal in goals:
            known.add(goal.name)
            if goal.met:
                continue
            if not said.get(goal.name):
                yield f"{path.stem}: {NAME} does not say why this is not met: {goal.name}"
            if goal.what is not None and current_profile(path, goal, commit) is None:
                yield f"{path.stem}: not met, and without a profile at {commit}: {goal.name}"
    yield from (f"{path.stem}: {NAME} explains what is no goal: {name}" for name in sorted(said.keys() - known))
