"""`branchtune COMMAND ...`: find the command, run it, turn user errors into one line and exit status 2."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from branchtune._version import __version__
from branchtune.cli.encoding import spell_out
from branchtune.errors import UserError, unknown

COMMANDS = {
    "demo": "the whole chain on rendered scenes with six tasks",
    "fit": "a whole run: measure affinity, plan the tree, train, evaluate",
    "affinity": "only measure which tasks agree, and print the matrix",
    "plan": "choose a tree from a measured affinity, draw it with its costs",
    "reference": "train the single-task models that delta_m divides by",
    "example-data": "render a small data set in the folder layout, to try things on",
    "check-data": "look through a folder of images and labels before training on it",
    "compare": "train several methods with several seeds, and tabulate them",
    "add-task": "add a task to a finished run and train what is new: a new run",
    "remove-task": "take a task out of a finished run: a new run",
    "report": "write a run's report as one HTML page, or compare several runs",
    "evaluate": "compute the metrics of a finished run again",
    "predict": "apply a run's model to images: arrays, pictures, sheets",
    "serve": "a page to try a run's model on images, an endpoint for programs",
    "export": "write a run's model for ONNX, torch.export or PEFT",
}
# Commands that find what an interrupted call of theirs has done.
CONTINUING = ("demo", "fit", "affinity", "reference", "compare", "add-task", "remove-task", "predict")
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
BROKEN_PIPE_STATUS = 141  # as of a process that SIGPIPE ended


def usage() -> str:
    """The text of `branchtune --help`."""
    lines = [
        "usage: branchtune COMMAND [...]",
        "",
        "Adapt one frozen vision backbone to many tasks with a tree of adapters.",
    ]
    lines += ["", "commands:", *(f"  {name:<12} {text}" for name, text in COMMANDS.items())]
    lines += ["", "branchtune COMMAND --help explains a command; --version prints the version."]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    spell_out(sys.stdout)
    spell_out(sys.stderr)
    try:
        try:
            status = _dispatch(argv)
        finally:  # also where a parser printed its help and exits
            sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE_STATUS
    return status


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        print(f"branchtune {__version__}")
        return 0
    goes_on = argv[0] in CONTINUING and "--overwrite" not in argv
    again = "the same command continues the run" if goes_on else ""
    try:
        if argv[0] not in COMMANDS:
            raise unknown("command", argv[0], COMMANDS)
        command = importlib.import_module(f"branchtune.cli.{argv[0].replace('-', '_')}")
        command.run(argv[1:])
    except UserError as error:
        print(f"branchtune: {_one_line(error)}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        print(f"branchtune: {_of_system(error, again)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"branchtune: interrupted{'; ' if again else ''}{again}", file=sys.stderr)
        return 130
    return 0


def _discard_output() -> None:
    """Nobody reads standard output any more: what is left to flush must not fail when Python ends."""
    with suppress(OSError, ValueError):  # a stream without descriptor
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: Exception) -> str:
    """The message; an error from a loader's worker process arrives with its traceback as text."""
    text = str(error)
    return " ".join((text.rpartition("UserError: ")[2] if text.startswith("Caught UserError") else text).split())


def _of_system(error: OSError, again: str) -> str:
    """A full disk, or a file without permission, where nothing nearer to it knows what to say."""
    parts = [f"{error.filename}: " if error.filename else "", error.strerror or _one_line(error)]
    advice = {
        **dict.fromkeys(NO_SPACE, "free some space there"),
        **dict.fromkeys(NO_PERMISSION, "give yourself permission there"),
    }.get(error.errno or 0, "")
    return "".join(parts) + "".join(f"; {text}" for text in (advice, again) if text)


def entry() -> None:
    sys.exit(main())
