"""What the commands that take a configuration have in common: `CONFIG`, overrides, `--quiet`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from branchtune.errors import UserError
from branchtune.low_memory.precision import Precision
from branchtune.settings import Settings, config_parser, parse, plain_parser
from branchtune.tables.outcome import Format


def configured(
    command: str, text: str, argv: Sequence[str], *, takes: str = "CONFIG", **options: Any
) -> tuple[Settings, Namespace]:
    """Parse `branchtune COMMAND CONFIG [--key value ...]`.

    Args:
        command: its name.
        text: what it does, for the help.
        argv: the arguments after the command; a first one without dashes is the configuration file.
        takes: what the help shows as the first arguments.
        options: further options of the command, as keyword arguments of `add_argument` by option name; an
            underscore in a name may also be typed as a dash.

    Returns:
        The settings, and a namespace with `quiet` and the further options.
    """
    parser = config_parser(
        prog=f"branchtune {command}", usage=f"branchtune {command} {takes} [--key value ...]", description=text
    )
    parser.add_argument("--quiet", action="store_true", help="plain lines instead of progress bars")
    for name, keywords in options.items():
        parser.add_argument(*dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")), **keywords)
    arguments = list(argv)
    if arguments and not arguments[0].startswith("-"):
        arguments.insert(0, "--config")
    if not arguments:
        raise UserError(f"branchtune {command} needs a configuration file: see configs/ for examples")
    namespace = parse(parser, arguments)
    chosen = Namespace({name: namespace.pop(name) for name in ("quiet", *options)})
    # The command's own options are no part of a run, hence a parser of the configuration alone.
    return Settings(plain_parser(), namespace), chosen


FORMAT: dict[str, Any] = {
    "type": Format | None,
    "default": None,
    "help": "md, json or csv: standard output holds the final table in that format and nothing else",
}


def add_format(parser: ArgumentParser) -> None:
    """`--format`, of commands that end with a table; `configured` takes it as `format=FORMAT`.

    `demo` and `check-data` lack it: their tables are for reading beside what they print before.
    """
    parser.add_argument("--format", **FORMAT)


def add_low_memory(parser: ArgumentParser) -> None:
    """`--low_memory`, of the commands that apply a finished run's model."""
    parser.add_argument(
        "--low_memory",
        type=Precision | None,
        default=None,
        help="precision of the backbone's weights (int8 needs torchao)",
    )
