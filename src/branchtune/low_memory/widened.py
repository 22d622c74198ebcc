"""Layers whose weight is kept in bfloat16, and widened when it is read."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from branchtune.images import is_autocast


def keep_bfloat16(layer: Any, bits: Tensor) -> None:
    """Give a layer its weight as bits of bfloat16 in int16, which `model.float()` and the like leave alone.

    Args:
        layer: changed in place; its class becomes a subclass of the one it had, whose `weight` is a property.
        bits: may be shared by several layers.
    """
    like = layer.weight.new_empty(0)
    del layer.weight
    layer.register_buffer("weight_bits", bits)
    layer.register_buffer("weight_like", like, persistent=False)
    kind: Any = type(layer)
    layer.__class__ = _class_with_bits(kind)


class _Widened:
    """A layer whose weight comes from its bits, in the model's precision.

    Under autocast, which would round it again, it stays bfloat16.
    """

    weight_bits: Tensor
    weight_like: Tensor

    @property
    def weight(self) -> Tensor:
        stored = self.weight_bits.view(torch.bfloat16)
        return stored if is_autocast(stored.device) else stored.to(self.weight_like.dtype)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """A copy, or what is loaded from a pickle, makes its class again, which can be imported from nowhere."""
        usual: Any = super().__reduce_ex__(protocol)
        return _empty, (type(self).__bases__[1],), *usual[2:]


@cache
def _class_with_bits(layer: Any) -> Any:
    return type(f"{layer.__name__}InBfloat16", (_Widened, layer), {})


def _empty(layer: Any) -> Any:
    cls = _class_with_bits(layer)
    return cls.__new__(cls)
