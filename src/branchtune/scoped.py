"""What a forward pass hands to the hooks that run during it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class Scoped(Generic[T]):
    """A value for the duration of a call; None outside.

    Each thread has its own, so that a server may call one model from several. While torch.compile traces, which knows
    no `ContextVar.set`, there is one for all: a trace is made by one thread at a time.
    """

    def __init__(self, name: str) -> None:
        self._own: ContextVar[T | None] = ContextVar(name, default=None)
        self._traced: T | None = None

    def get(self) -> T | None:
        return self._traced if torch.compiler.is_compiling() else self._own.get()

    def set(self, value: T | None) -> None:
        if torch.compiler.is_compiling():
            self._traced = value
        else:
            self._own.set(value)
