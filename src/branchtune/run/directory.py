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
FREE_KEYS = ("output", "data.workers", "data.cache", "loggers")


class RunDirectory:
    """`output/name`: config.yaml, decoders, affinity.json, tree.json, checkpoints, metrics, results and model.

    Every file is complete when it exists: it is written to a temporary name and renamed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, settings: Settings) -> RunDirectory:
        """Create the directory, or continue the run that it holds.

        Raises:
            UserError: it holds a run of another configuration, or cannot be written.
        """
        config = settings.config
        run = cls(Path(config.output) / config.name)
        known = run.path / "config.yaml"
        if known.exists():
            run._check_same(settings, known)
            return run
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot create the run directory {run.path}: {error.strerror}, set --output") from error
        write_text(known, settings.text())
        return run

    def _check_same(self, settings: Settings, known: Path) -> None:
        try:
            old = flatten(yaml.safe_load(known.read_text(encoding="utf-8")))
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{known} is damaged: delete {self.path} or choose another --name") from error
        new = settings.flat()
        for key in sorted({*old, *new}):
            if key.startswith(FREE_KEYS) or old.get(key) == new.get(key):
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
