"""Attention in the one shape that the ONNX exporter translates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

_ATTENTION: Any = F.scaled_dot_product_attention


class FourDimensionalAttention(TorchFunctionMode):
    """While it is active, `scaled_dot_product_attention` gets `[B, heads, N, C]`, whatever the model calls it with.

    Models without heads call it with `[B, N, C]`, hierarchical ones with `[B, heads, windows, N, C]`. Calls of more
    than four dimensions with a mask, and calls by keywords, stay as they are.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is not _ATTENTION or len(args) < 3 or args[0].ndim == 4:
            return func(*args, **kwargs)
        query, key, value, *rest = args
        mask = rest.pop(0) if rest else kwargs.pop("attn_mask", None)
        if query.ndim == 3:
            mask = mask.unsqueeze(1) if isinstance(mask, Tensor) and mask.ndim == 3 else mask
            heads = (tensor.unsqueeze(1) for tensor in (query, key, value))
            return func(*heads, mask, *rest, **kwargs).squeeze(1)
        if mask is not None:
            return func(query, key, value, mask, *rest, **kwargs)
        last = query.ndim - 4
        folded = (tensor.flatten(0, last) for tensor in (query, key, value))
        return func(*folded, mask, *rest, **kwargs).unflatten(0, query.shape[: last + 1])
