"""YAML files of the user's: errors that name the file and the line."""

from __future__ import annotations

from pathlib import Path

import yaml

from branchtune.errors import UserError


def check_yaml(path: Path) -> None:
    """Raise a `UserError` that names file and line unless `path` holds a YAML mapping."""
    if not path.is_file():
        raise UserError(f"no configuration file {str(path)!r}: see configs/ for examples")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{line}: {error.problem or error.context}, correct the YAML there") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no keys: a configuration is a YAML mapping, see configs/ for examples")
