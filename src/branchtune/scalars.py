"""Numbers that a user gives: Python's, NumPy's and torch's, but no texts."""

from __future__ import annotations

import operator
from typing import Any

from branchtune.errors import UserError


def whole(what: str, value: Any) -> int:
    """An int from an int of any library.

    Raises:
        UserError: a fraction, a text, True or anything else.

    >>> whole("r", 8)
    8
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} must be a whole number, got {value!r}") from error


def real(what: str, value: Any) -> float:
    """A number from a number of any library, ints as they are; NaN and infinity are for the caller to judge.

    Raises:
        UserError: a text, True or anything else.

    >>> real("weight", 2)
    2
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    try:
        if isinstance(value, bool | str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} must be a number, got {value!r}") from error
