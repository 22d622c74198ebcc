"""The run directory: what a run leaves behind, and how the next call of the same command finds it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from branchtune.atomic import write_json, write_text
from branchtune.errors import UserError
from branchtune.settings import Settings, flatten

# Keys that cannot change a run's numbers: another value continues the run.
FREE_KEYS = ("output", "data.workers", "data.pin_memory", "data.cache", "loggers")


class RunDirectory:
    """`output/name`: config.yaml, decoders, affinity.json, tree.json, checkpoints, metrics, results and model.

    Every file is complete when it exists: it is written to a temporary name and renamed.

    Args:
        settings: of the run; nothing is written before `create`.

    Raises:
        UserError: the directory holds a run of another configuration.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = Path(settings.config.output) / settings.config.name
        self.settings = settings
        if self.has("config.yaml"):
            self._check_same(self.path / "config.yaml")

    def create(self) -> None:
        """Begin the run, unless it is being continued.

        Raises:
            UserError: the directory cannot be written.
        """
        if not self.has("config.yaml"):
            write_text(self.path / "config.yaml", self.settings.text())

    def _check_same(self, known: Path) -> None:
        try:
            old = flatten(yaml.safe_load(known.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{known} is damaged: delete {self.path} or choose another --name") from error
        new = self.settings.flat()
        for key in sorted({*old, *new}):
            if key in FREE_KEYS or old.get(key) == new.get(key):
                continue
            raise UserError(
                f"{self.path} holds a run with {key}={old.get(key)!r}, this one has {key}={new.get(key)!r}: "
                "choose another --name, or delete the directory"
            )

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def file(self, name: str) -> Path:
        return self.path / name

    def read(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            UserError: it is missing or damaged.
        """
        path = self.path / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"{path} does not exist: is this a finished run of `branchtune fit`?") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is damaged: delete it, the run makes it again") from error

    def write(self, name: str, data: Any) -> None:
        write_json(self.path / name, data)
