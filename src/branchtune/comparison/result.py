"""A finished comparison: the raw results of every method and seed, and the settings that they hold for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from branchtune.atomic import write_json
from branchtune.errors import UserError
from branchtune.evaluation.references import Reference
from branchtune.json_file import read_json
from branchtune.run.results import Results

FORMAT = 1


@dataclass(frozen=True)
class Tuning:
    """The learning rate that a method was given.

    Attributes:
        factor: chosen multiple of the configuration's rate.
        scores: validation score of every factor of the grid, percent over the first one that did not diverge, None for
            one that did; empty without a grid.
    """

    factor: float
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Comparison:
    """Everything that a table of methods is computed from.

    Attributes:
        name: of the comparison.
        command: that remakes it.
        config: the resolved configuration, as YAML.
        seeds: that every method was trained with.
        tuning: by method.
        reference: the mean single-task results that every delta_m divides by.
        runs: by method, the results of every seed.
        notes: sentences that belong beside the tables.
    """

    name: str
    command: str
    config: str
    seeds: list[int]
    tuning: dict[str, Tuning]
    reference: Reference
    runs: dict[str, list[Results]]
    notes: tuple[str, ...] = ()

    def save(self, path: Path) -> None:
        """Write as JSON, under a temporary name that is then renamed."""
        write_json(path, self.to_json())

    def to_json(self) -> dict[str, Any]:
        reference = self.reference
        return {
            "format": FORMAT,
            "name": self.name,
            "command": self.command,
            "config": self.config,
            "seeds": self.seeds,
            "notes": list(self.notes),
            "tuning": {m: {"factor": t.factor, "scores": t.scores} for m, t in self.tuning.items()},
            "reference": {"id": reference.id, "metrics": reference.metrics, "settings": reference.settings},
            "runs": {method: [r.to_json() for r in results] for method, results in self.runs.items()},
        }

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of a newer format.
        """
        content = read_json(
            path, missing="`branchtune compare` writes it", damaged="`branchtune compare` writes it again"
        )
        try:
            if content["format"] > FORMAT:
                raise UserError(f"{path} has format {content['format']}, newer than {FORMAT}: update branchtune")
            if not all(0 < values["factor"] < math.inf for values in content["tuning"].values()):
                raise KeyError("a tuned rate is not positive")
            if not isinstance(content["config"], str):
                raise TypeError("its configuration is no text")
            return cls(
                content["name"],
                content["command"],
                content["config"],
                content["seeds"],
                {method: Tuning(**values) for method, values in content["tuning"].items()},
                Reference(**content["reference"]),
                {m: [Results.from_json(r, str(path)) for r in results] for m, results in content["runs"].items()},
                tuple(map(str, content.get("notes", ()))),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}): `branchtune compare` writes it again") from error
