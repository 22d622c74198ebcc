"""The run directory: what a run leaves behind, and how the next call of the same command finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from branchtune.atomic import write_json, write_text
from branchtune.config import PLANNED
from branchtune.errors import UserError
from branchtune.json_file import read_json
from branchtune.settings import Settings, resolved

# Keys that cannot change a run's numbers: another value continues the run.
FREE_KEYS = (
    *("output", "data.workers", "data.pin_memory", "data.cache"),
    *("loggers", "checkpoint_levels", "conflict_every"),
)
# Keys that only a later phase reads, and the files whose presence says that it has begun.
LAST_CHECKPOINT = "checkpoints/last.ckpt"
PHASE_KEYS = {
    ("tree", "method", "adapter_share", "extras"): ("tree.json", LAST_CHECKPOINT),
    ("trainer", "optimizer", "schedule", "early_stopping", "evaluate", "reference"): (LAST_CHECKPOINT,),
}


class RunDirectory:
    """`output/name`: config.yaml, decoders, affinity.json, tree.json, checkpoints, metrics, results and model.

    Every file is complete when it exists: it is written to a temporary name and renamed.

    Args:
        settings: of the run; nothing is written before `create`.

    Raises:
        UserError: the directory holds a run of another configuration, or a comparison.
    """

    def __init__(self, settings: Settings) -> None:
        self.path = Path(settings.config.output) / settings.config.name
        self.settings = settings
        if self.has("comparison.json"):
            raise UserError(
                f"{self.path} holds a comparison, whose report.html a run would replace: choose another --name"
            )
        if self.has("config.yaml"):
            self._check_same(self.path / "config.yaml")

    def create(self) -> None:
        """Begin the run, or continue it; keys of phases that had not begun take the new values.

        Raises:
            UserError: the directory cannot be written, or holds a run of another configuration.
        """
        known = self.path / "config.yaml"
        if not known.exists() or any(key not in FREE_KEYS for key in self._check_same(known)):
            write_text(known, self.settings.text())

    def _check_same(self, known: Path) -> list[str]:
        """The keys that differ from those of the run; a `UserError` where one of them may not."""
        try:
            text = known.read_text(encoding="utf-8")
            if text == self.settings.text():  # the same command again, whose file need not be parsed
                return []
            old = resolved(text)
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{known} is damaged: delete {self.path} or choose another --name") from error
        new = self.settings.flat()
        differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
        for key in differing:
            if not self._free(key):
                raise UserError(
                    f"{self.path} holds a run with {key}={old.get(key)!r}, this one has {key}={new.get(key)!r}: "
                    "choose another --name, or delete the directory"
                )
        return differing

    def _free(self, key: str) -> bool:
        """Whether another value of `key` leaves everything as it is that the run has done so far."""
        section = key.partition(".")[0]
        method = self.settings.config.method
        if section == "tree" and method not in PLANNED:
            return True
        begun = next((files for keys, files in PHASE_KEYS.items() if section in keys), None)
        return key in FREE_KEYS or (begun is not None and not any(map(self.has, begun)))

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def file(self, name: str) -> Path:
        return self.path / name

    def read(self, name: str) -> Any:
        """The content of a JSON file.

        Raises:
            UserError: it is missing or damaged.
        """
        missing = "is this a finished run of `branchtune fit`?"
        return read_json(self.path / name, missing=missing, damaged="delete it, the run makes it again")

    def write(self, name: str, data: Any) -> None:
        write_json(self.path / name, data)


def load_settings(run: Path) -> Settings:
    """The configuration of a finished run.

    Raises:
        UserError: the folder is no run directory, or the run has not ended.
    """
    if not (run / "config.yaml").is_file():
        raise UserError(f"{run} is no run directory (no config.yaml): give the folder that `branchtune fit` wrote")
    if not (run / "results.json").is_file():
        raise UserError(f"{run} is not finished: `branchtune fit {run / 'config.yaml'}` continues it")
    return Settings.load(run / "config.yaml")


def model_folder(run: Path) -> Path:
    """Where a finished run's model is.

    Raises:
        UserError: it is not there.
    """
    folder = run / "model"
    if not folder.is_dir():
        raise UserError(f"{run} has no model ({folder} is missing): copy the whole run, or train it again")
    return folder
