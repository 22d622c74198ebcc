"""The one exception type for mistakes a user can make, and how its messages name the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UserError(ValueError):
    """A mistake in the user's input. The message is one line that names the thing and the way out.

    The command line prints the message alone and exits with status 2.
    """


class DivergedError(UserError):
    """A loss that became NaN or infinite in training: the fault of a learning rate or of labels."""


def unknown(what: str, name: str, choices: Iterable[str]) -> UserError:
    """An error for a name that is not among `choices`, with the nearest valid name.

    >>> str(unknown("task", "dept", ["depth", "semseg"]))
    "unknown task 'dept': did you mean 'depth'? (known: depth, semseg)"
    """
    names = sorted(map(str, choices))
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f": did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return UserError(f"unknown {what} {name!r}{hint} (known: {listed or 'none'})")


def check_instance(what: str, value: Any, kind: type, example: str) -> None:
    """Refuse a text, a class or anything else where an instance of `kind` (or None) is expected.

    >>> check_instance("adapter", "lora", dict, "LoRA(r=8)")
    Traceback (most recent call last):
    branchtune.errors.UserError: adapter='lora' is of type str: pass an instance, such as LoRA(r=8)
    """
    if value is None or isinstance(value, kind):
        return
    if isinstance(value, type):
        raise UserError(f"{what}={value.__name__} is a class: pass an instance, such as {example}")
    raise UserError(f"{what}={value!r} is of type {type(value).__name__}: pass an instance, such as {example}")


def reason_of(error: Exception) -> str:
    """Why something was left out, in one line: the message, after its type where it was not written to be read alone.

    >>> reason_of(UserError("no such image: give another")), reason_of(KeyError("depth"))
    ('no such image: give another', "KeyError: 'depth'")
    """
    text, kind = " ".join(str(error).split()), type(error).__name__
    if isinstance(error, UserError):
        return text
    return f"{kind}: {text}" if text else kind
