"""Trials of learning rates that diverged; a record keeps them from being trained again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from branchtune.atomic import write_json
from branchtune.errors import DivergedError
from branchtune.json_file import read_json

NAME = "diverged.json"


def record_divergence(run: Path, error: Exception) -> None:
    """Keep what ended the trial in this run directory."""
    write_json(run / NAME, {"error": str(error)})


def divergence(run: Path) -> str | None:
    """What ended the trial in this run directory, and where that is kept; None where it did not diverge, or not yet.

    Raises:
        UserError: the record is damaged.
    """
    if not (run / NAME).exists() or (run / "results.json").exists():
        return None
    content = read_json(run / NAME, missing="", damaged="delete it, the trial is made again")
    error = content.get("error") if isinstance(content, dict) else "its record is damaged"
    return f"{error} (so {run / NAME} says: delete it, and the trial is made again)"


@contextmanager
def named(run: str) -> Iterator[None]:
    """Put the name of the run before the message of one that diverges."""
    try:
        yield
    except DivergedError as error:
        raise DivergedError(f"{run}: {error}") from error
