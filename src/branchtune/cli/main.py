"""`branchtune COMMAND ...`: find the command, run it, turn user errors into one line and exit status 2."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from branchtune._version import __version__
from branchtune.errors import UserError, unknown

COMMANDS = {
    "demo": "render scenes, adapt the packaged backbone to six tasks, print the comparison",
    "fit": "fit decoders, measure affinity, plan the tree, train, evaluate: a whole run",
    "affinity": "only measure which tasks agree, and print the matrix",
    "plan": "choose a tree from a measured affinity, and print what it costs",
    "reference": "train the single-task models that delta_m divides by",
    "compare": "train several methods with several seeds, and tabulate them",
    "evaluate": "compute the metrics of a finished run again",
    "predict": "apply a run's model to images, write maps and colour pictures",
}


def usage() -> str:
    """The text of `branchtune --help`."""
    lines = [
        "usage: branchtune COMMAND [...]",
        "",
        "Adapt one frozen vision backbone to many tasks with a tree of adapters.",
    ]
    lines += ["", "commands:", *(f"  {name:<10} {text}" for name, text in COMMANDS.items())]
    lines += ["", "branchtune COMMAND --help explains a command; branchtune --version prints the version."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"branchtune {__version__}")
        return 0
    try:
        if argv[0] not in COMMANDS:
            raise unknown("command", argv[0], COMMANDS)
        command = importlib.import_module(f"branchtune.cli.{argv[0]}")
        command.run(argv[1:])
    except UserError as error:
        print(f"branchtune: {_one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"branchtune: {_of_system(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("branchtune: interrupted; the same command continues the run", file=sys.stderr)
        return 130
    return 0


def _one_line(error: Exception) -> str:
    """The message; an error from a loader's worker process arrives with its traceback as text."""
    text = str(error)
    return " ".join((text.rpartition("UserError: ")[2] if text.startswith("Caught UserError") else text).split())


def _of_system(error: OSError) -> str:
    """A full disk, or a file without permission, where nothing nearer to it knows what to say."""
    where = f"{error.filename}: " if error.filename else ""
    return (
        f"{where}{error.strerror or _one_line(error)}; free space or permissions there, then the same command continues"
    )


def entry() -> None:
    sys.exit(main())
