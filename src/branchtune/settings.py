"""YAML files and command-line keys -> a `RunConfig`, and back to the text that repeats it (no torch here)."""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from branchtune.config import RunConfig
from branchtune.errors import UserError, unknown


def config_parser(**kwargs: Any) -> ArgumentParser:
    """A parser with every key of `RunConfig` and `--config FILE`."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_argument("--config", action="config", help="a YAML file; keys on the command line override it")
    parser.add_class_arguments(RunConfig, None, help="run configuration")
    return parser


class Settings:
    """A parsed configuration: the typed objects, and what it takes to write, change or compare it."""

    def __init__(self, parser: ArgumentParser, namespace: Namespace) -> None:
        self._parser, self._namespace = parser, namespace

    @classmethod
    def load(cls, path: str | Path, overrides: Sequence[str] = ()) -> Settings:
        """Read a YAML file, with command-line style overrides such as `--adapter.r=16`.

        Raises:
            UserError: the file is missing, is not YAML, or has an unknown key or a value of the wrong type.
        """
        if not Path(path).is_file():
            raise UserError(f"no configuration file {str(path)!r}: see configs/ for examples")
        parser = config_parser()
        return cls(parser, parse(parser, ["--config", str(path), *overrides]))

    @cached_property
    def config(self) -> RunConfig:
        """The typed configuration."""
        values = self._parser.instantiate(self._namespace)
        fields = {key: value for key, value in vars(values).items() if key in RunConfig.__dataclass_fields__}
        config = RunConfig(**fields)
        for name, task in config.tasks.items():
            if task.name != name:
                raise UserError(f"tasks.{name} has the name {task.name!r}: key and name must be the same")
        if not config.tasks:
            raise UserError("tasks is empty: name at least one task")
        return config

    def but(self, *, tasks: Sequence[str] | None = None, **changes: Any) -> Settings:
        """These settings with other values of top-level keys; `tasks` keeps only the named ones."""
        namespace = copy.deepcopy(self._namespace)
        for key, value in changes.items():
            namespace[key] = value
        if tasks is not None:
            namespace["tasks"] = {name: namespace["tasks"][name] for name in tasks}
        return Settings(self._parser, namespace)

    def text(self) -> str:
        """The whole resolved configuration as YAML."""
        namespace = copy.deepcopy(self._namespace)
        namespace.pop("config", None)
        with warnings.catch_warnings():
            # A tuple in the arguments of a class is written as a list, which is what its type accepts.
            warnings.filterwarnings("ignore", message=r"\s*Dump of a value that does not round-trip")
            return self._parser.dump(namespace)

    def flat(self) -> dict[str, Any]:
        """Every leaf by its dotted key."""
        return flatten(yaml.safe_load(self.text()))


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, with one-line errors that name the nearest valid key.

    Raises:
        UserError: an unknown key, a missing one, or a value of the wrong type.
    """
    try:
        return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise _explain(parser, str(error)) from error


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted keys."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _explain(parser: ArgumentParser, message: str) -> UserError:
    keys = sorted({action.dest for action in parser._actions if action.dest not in ("help", "config")})
    for pattern in (
        r"unrecognized arguments: --([\w.\-]+)",
        r"[Kk]ey '([\w.\-]+)' is not expected",
        r"Option '(\w+)' is not",
    ):
        found = re.search(pattern, message)
        if found:
            name = found.group(1)
            near = difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
            if near or "." not in name:
                return unknown("configuration key", name, keys if near else _top_level(keys))
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    return UserError(" ".join(lines)[:600] or message)


def _top_level(keys: Sequence[str]) -> list[str]:
    return sorted({key.partition(".")[0] for key in keys})
