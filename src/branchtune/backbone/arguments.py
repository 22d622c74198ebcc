"""Which arguments of a module's call are tensors that may carry the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def tensor_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[int | str, Tensor]:
    """Tensors with a first dimension, by position or keyword, in order; the first is the stream of activations."""
    arguments: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
    return {key: value for key, value in arguments if isinstance(value, Tensor) and value.ndim}


def replace_arguments(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], changed: Mapping[int | str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with some of them changed, as a forward pre-hook returns them."""
    return (
        tuple(changed.get(i, value) for i, value in enumerate(args)),
        {key: changed.get(key, value) for key, value in kwargs.items()},
    )
