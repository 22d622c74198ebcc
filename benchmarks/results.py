"""The file of results: one entry for each group, replaced when the group has run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.goal import Goal
from branchtune.atomic import write_json
from branchtune.json_file import read_json

RESULTS = Path(__file__).parent / "results"


class Results:
    """What was measured on one kind of device.

    Args:
        path: of the JSON file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def groups(self) -> dict[str, dict[str, Any]]:
        """The entry of every group that has run."""
        if not self.path.exists():
            return {}
        return dict(read_json(self.path, missing="run the benchmarks", damaged="delete it")["groups"])

    def put(self, group: str, entry: dict[str, Any]) -> None:
        """Replace one group's entry and leave the others as they are."""
        write_json(self.path, {"format": 1, "groups": self.groups() | {group: entry}})

    def goals(self) -> dict[str, list[Goal]]:
        """Of every group that has run."""
        return {name: [Goal.from_json(goal) for goal in entry["goals"]] for name, entry in self.groups().items()}

    def done(self, group: str, commit: str | None, rounds: int | None) -> bool:
        """Whether the group has run to its end, with as many rounds, at this commit, which is known and clean."""
        entry = self.groups().get(group)
        if entry is None or commit is None or commit.endswith("-dirty"):
            return False
        return bool(entry["commit"] == commit and entry["rounds"] == rounds and entry["error"] is None)
