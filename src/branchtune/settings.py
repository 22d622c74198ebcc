"""YAML files and command-line keys -> a `RunConfig`, and back to the text that repeats it (no torch here)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from branchtune.config import RunConfig
from branchtune.errors import UserError
from branchtune.settings_errors import explain, tidy
from branchtune.yaml_file import check_yaml


def config_parser(**kwargs: Any) -> ArgumentParser:
    """A parser with every key of `RunConfig` and `--config FILE`."""
    parser = ArgumentParser(exit_on_error=False, **kwargs)
    parser.add_argument("--config", action="config", help="a YAML file; keys on the command line override it")
    parser.add_class_arguments(RunConfig, None, help="run configuration")
    return parser


@cache
def plain_parser() -> ArgumentParser:
    """The parser of the configuration alone, which takes longer to make than to use."""
    return config_parser()


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
        parser = plain_parser()
        return cls(parser, parse(parser, ["--config", str(path), *overrides]))

    @classmethod
    def parse(cls, text: str) -> Settings:
        """The inverse of `text`."""
        parser = plain_parser()
        with _quiet_dump():
            return cls(parser, parser.parse_string(text))

    @cached_property
    def config(self) -> RunConfig:
        """The typed configuration.

        Raises:
            UserError: a value out of its range.
        """
        try:
            values = self._parser.instantiate(self._namespace)
        except UserError:
            raise
        except ValueError as error:  # of an optional part, which jsonargparse tried as null too
            raise UserError(tidy(str(error))) from error
        return RunConfig(**{key: value for key, value in vars(values).items() if key in RunConfig.__dataclass_fields__})

    def but(self, *, tasks: Sequence[str] | None = None, **changes: Any) -> Settings:
        """These settings with other values of top-level keys; `tasks` keeps only the named ones."""
        namespace = copy.deepcopy(self._namespace)
        for key, value in changes.items():
            namespace[key] = value
        if tasks is not None:
            namespace["tasks"] = {name: namespace["tasks"][name] for name in tasks}
        return Settings(self._parser, namespace)

    def on_one_device(self) -> Settings:
        """These settings for a process that is alone, on the first of the devices that they name."""
        trainer = {key: value for key, value in self.config.trainer.items() if key != "num_nodes"}
        devices = trainer.get("devices")
        return self.but(trainer=trainer | {"devices": list(devices[:1]) if isinstance(devices, list | tuple) else 1})

    def text(self) -> str:
        """The whole resolved configuration as YAML."""
        return self._text

    @cached_property
    def _text(self) -> str:
        namespace = copy.deepcopy(self._namespace)
        namespace.pop("config", None)
        with _quiet_dump():
            return self._parser.dump(namespace, skip_unset=False)

    def flat(self) -> dict[str, Any]:
        """Every leaf by its dotted key; see `flatten`."""
        return flatten(yaml.safe_load(self.text()))


def resolved(text: str) -> dict[str, Any]:
    """Every leaf of a stored configuration; keys that are newer than it have their defaults, which change nothing."""
    try:
        return Settings.parse(text).flat()
    except ArgumentError:  # of another version: compared as it stands
        return flatten(yaml.safe_load(text))


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parse, with one-line errors that name the nearest valid key.

    Raises:
        UserError: a configuration file that is missing or is not YAML, an unknown key, a missing one, or a value of the
            wrong type.
    """
    for index, argument in enumerate(arguments):
        if argument.startswith("--config="):
            check_yaml(Path(argument.partition("=")[2]))
        elif argument == "--config" and index + 1 < len(arguments):
            check_yaml(Path(arguments[index + 1]))
    try:
        with _quiet_dump():
            return parser.parse_args(list(arguments))
    except ArgumentError as error:
        raise explain(parser, str(error)) from error


@contextmanager
def _quiet_dump() -> Iterator[None]:
    """A tuple in the arguments of a class is written as a list, which is what its type accepts."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*Dump of a value that does not round-trip")
        yield


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries -> dotted keys. A null or empty value is left out: it says what a missing key says."""
    if not isinstance(value, dict):
        return {} if value is None else {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}.{key}" if prefix else str(key))
    return flat
