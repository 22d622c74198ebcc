"""jsonargparse's messages -> one line that names the key or the class, and the nearest valid one."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence

from jsonargparse import ArgumentParser

import branchtune
from branchtune.errors import UserError, unknown

# Keys whose values are classes, and where those of this package are.
_FOLDERS = {"tasks": "tasks.", "adapter": "adapters.", "decoder": "decoders.", "optimizer": "training."}
_NO_KEYS = ("help", "config", "quiet", "print_config", "print_shtab")


def explain(parser: ArgumentParser, message: str) -> UserError:
    """The error to raise for a message of jsonargparse's."""
    if found := re.search(r"arguments are required: tasks$", message):
        return UserError("no tasks: give a configuration file first (see configs/ for examples), or the key tasks")
    if found := re.search(r"unrecognized arguments: (\S+)", message):
        name = found[1].partition("=")[0]
        if name.startswith("--"):
            return _unknown_key(parser, name[2:])
        return UserError(f"unexpected argument {found[1]!r}: the file comes first, then --key value")
    if found := re.search(r"class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted", message):
        return _unknown_option(found[1], found[2])
    if found := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        return _unknown_key(parser, f"{found[1]}.{found[2]}")
    if found := re.search(r"Option '([\w.]+)' is not accepted", message):
        return _unknown_key(parser, found[1])
    if found := re.search(r"key \"(\w+)\"[\s\S]+(?:class_path '(branchtune\.\w+)'|path string: (\w+)$)", message):
        classes = _classes(found[1])
        name = found[2] or f"branchtune.{found[3]}"
        if classes and name not in classes:
            return unknown("class", name, classes)
        if classes and found[3]:
            return UserError(f"{found[1]}: write {name} for the class {found[3]}")
    return UserError(tidy(message))


def tidy(message: str) -> str:
    """One line, without the alternatives of optional values."""
    inner = re.search(r"Errors:\s*([\s\S]+?)\s*(?:Given value|$)", message)
    if inner:
        head = message.partition("Does not validate")[0]
        kinds = re.sub(r"- Expected (a )?<class 'NoneType'>", "", inner[1]).strip()
        given = re.search(r"Given value: (.*)", message)
        message = head + kinds + (f". Got value: {given[1]}" if given and "Got value" not in kinds else "")
    message = re.sub(r'Parser key "([\w.]+)"', r"\1", message)
    message = re.sub(r"(?:a )?<class '([\w.]+)'>", r"a \1", message)
    message = re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", message)
    return " ".join(word for word in message.split() if word != "-")[:600]


def _unknown_key(parser: ArgumentParser, name: str) -> UserError:
    destinations = {action.dest for action in parser._actions}
    keys = sorted(key for key in destinations if key not in _NO_KEYS and not key.endswith(".help"))
    section = name.rpartition(".")[0]
    siblings = [key for key in keys if key.startswith(f"{section}.")] if section else []
    return unknown("configuration key", name, siblings or sorted({key.partition(".")[0] for key in keys}))


def _unknown_option(path: str, option: str) -> UserError:
    module, _, name = path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
        known: Sequence[str] = [key for key in inspect.signature(kind).parameters if key != "self"]
    except (ImportError, AttributeError, TypeError, ValueError):
        known = []
    return unknown(f"argument of {path}", option, known)


def _classes(key: str) -> list[str]:
    folder = _FOLDERS.get(key)
    bases = ("Task", "Adapter", "Decoder")
    names = [name for name, module in branchtune._MODULES.items() if folder and module.startswith(folder)]
    return [f"branchtune.{name}" for name in names if name not in bases]
