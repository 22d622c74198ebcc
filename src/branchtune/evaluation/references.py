"""Single-task results that a relative gain divides by, stored with how they were obtained."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, field
from typing import Any

from branchtune.atomic import write_text
from branchtune.errors import UserError
from branchtune.json_file import read_json

FORMAT = 1


@dataclass(frozen=True)
class Reference:
    """The headline value of each task's single-task model, and the settings that it holds for.

    Attributes:
        id: the name that a report shows beside every gain.
        metrics: task -> headline value.
        settings: anything that JSON can hold, say backbone, decoder, recipe, seeds and lists of values per
            seed.
    """

    id: str
    metrics: dict[str, float]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise UserError("a reference needs an id: it is printed beside every result that is compared with it")
        for task, value in self.metrics.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise UserError(f"reference {self.id!r}: the value of task {task!r} is {value!r}, not a finite number")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to `path` as JSON; a reader sees the old file or the new one, nothing in between.

        Raises:
            UserError: settings that JSON cannot hold, or a file that cannot be written.
        """
        content = {"format": FORMAT, "id": self.id, "metrics": self.metrics, "settings": self.settings}
        try:
            text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise UserError(f"reference {self.id!r}: its settings do not fit into JSON ({error})") from error
        write_text(path, text)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reference:
        """Read what `save` wrote.

        Raises:
            UserError: a file that is missing, damaged, or of a newer format.
        """
        name = os.fspath(path)
        content = read_json(
            name, missing="`branchtune reference CONFIG` writes a reference", damaged="write the reference again"
        )
        found = content.get("format") if isinstance(content, dict) else None
        if isinstance(found, int) and found > FORMAT:
            raise UserError(f"reference {name!r} has format {found}, this version reads {FORMAT}: update branchtune")
        if found != FORMAT:
            raise UserError(f"reference {name!r} is damaged, write it again (no 'format')")
        try:
            return cls(content["id"], dict(content["metrics"]), dict(content["settings"]))
        except KeyError as error:
            raise UserError(f"reference {name!r} is damaged, write it again (no {error})") from error
        except (TypeError, ValueError) as error:
            raise UserError(f"reference {name!r} is damaged, write it again ({error})") from error
