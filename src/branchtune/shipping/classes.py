"""Objects as JSON: the path of their class and the arguments of its constructor. Nothing is ever unpickled."""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any, TypeVar

import branchtune
from branchtune.errors import UserError

T = TypeVar("T")

#: arguments that the tasks keep as another attribute
_KEPT_AS = {"num_classes": "out_channels", "num_outputs": "out_channels"}


def describe(thing: object) -> dict[str, Any]:
    """`{"class": "branchtune.LoRA", "args": {"r": 8, ...}}`, from which `rebuild` makes an equal object.

    The arguments are read from the attributes of the same names, so a class of the user's own keeps what its
    constructor takes (`self.smoothing = smoothing`) and lies at the top of a module.

    Raises:
        UserError: a class that cannot be imported by its path, an argument that is kept nowhere or that JSON cannot
            hold, or arguments that do not make an equal object.
    """
    path, arguments = class_path(type(thing)), _arguments(thing)
    try:
        text = json.dumps(arguments, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{path}: its arguments cannot be saved as JSON ({error}): keep numbers, texts and lists"
        ) from error
    entry = {"class": path, "args": json.loads(text)}
    made = rebuild(entry, type(thing))
    again = json.dumps(_arguments(made))
    if again != text:
        raise UserError(f"{path}: created with {text} it has {again}: keep each argument as it was passed")
    _check_further(thing, made)
    return entry


def rebuild(entry: Any, base: type[T]) -> T:
    """The inverse of `describe`.

    Args:
        entry: what `describe` returned.
        base: the class, or a base class, that the entry must name; nothing else is ever called.

    Raises:
        UserError: the class cannot be imported, is no `base`, or refuses the arguments.
    """
    try:
        path, arguments = entry["class"], dict(entry["args"])
        module, _, name = path.rpartition(".")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{entry!r} does not describe an object: expected 'class' and 'args'") from error
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"{path} cannot be imported ({error}): install or import the code that defines it") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{path} is no {base.__name__}: the file names the wrong class")
    try:
        return found(**_with_tuples(found, arguments))
    except TypeError as error:
        raise UserError(f"{path} does not take these arguments ({error}): use the code it was saved with") from error


def class_path(cls: type) -> str:
    """The path to import a class by: `branchtune.LoRA` for what branchtune exports, `module.Class` else."""
    if getattr(branchtune, cls.__name__, None) is cls:
        return f"branchtune.{cls.__name__}"
    if "." in cls.__qualname__:
        raise UserError(
            f"{cls.__module__}.{cls.__qualname__} cannot be imported when the model is loaded: "
            "define the class at the top of a module"
        )
    return f"{cls.__module__}.{cls.__qualname__}"


def _arguments(thing: object) -> dict[str, Any]:
    arguments = {}
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        kept = name if hasattr(thing, name) else _KEPT_AS.get(name, name)
        if not hasattr(thing, kept):
            raise UserError(
                f"{type(thing).__name__} does not keep its argument {name!r}: "
                f"write self.{name} = {name} in its __init__"
            )
        arguments[name] = getattr(thing, kept)
    return arguments


def _check_further(thing: object, made: object) -> None:
    """Arguments without a name of their own (*args, **kwargs) are not written down: they must not have mattered."""
    path = class_path(type(thing))
    for name, parameter in inspect.signature(type(thing)).parameters.items():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        for attribute, value in vars(thing).items():
            again = vars(made).get(attribute)
            if _as_json(value) not in (None, _as_json(again)):
                raise UserError(
                    f"{path} takes {parameter}, and made without them its {attribute} is {again!r}, not {value!r}: "
                    f"give __init__ an argument {attribute!r} in place of {name!r}"
                )


def _as_json(value: object) -> str | None:
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return None


def _with_tuples(cls: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples: lists become tuples where the constructor's annotation says so."""
    parameters = inspect.signature(cls).parameters
    tuples = {name for name, parameter in parameters.items() if str(parameter.annotation).startswith("tuple")}
    return {
        name: tuple(value) if name in tuples and isinstance(value, list) else value for name, value in arguments.items()
    }
