"""Bilinear resampling of maps."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`[B, C, h, w]` -> `[B, C, *size]`, bilinear; the tensor itself when it has that size.

    The gradient is the same as that of `torch.nn.functional.interpolate`, as two matrix products: several times faster
    on a CPU, and deterministic on a GPU, where torch adds it up in an order of its own.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if not x.requires_grad or not torch.is_grad_enabled():
        return _interpolate(x, size)
    return _Resize.apply(x, (int(size[0]), int(size[1])))


def resized_rows(x: Tensor, size: tuple[int, int], rows: range) -> Tensor:
    """Some rows of `resize(x, size)`, without the memory of all of them; no gradient.

    Args:
        x: `[B, C, h, w]`.
        size: of the whole result.
        rows: consecutive ones, `[B, C, len(rows), size[1]]` is returned.
    """
    place = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5) * (x.shape[2] / size[0]) - 0.5
    place = place.clamp(0, x.shape[2] - 1)
    above = place.floor()
    share = (place - above).to(x.device, x.dtype)[:, None]
    first = above.long().to(x.device)
    lines = torch.lerp(x[:, :, first], x[:, :, (first + 1).clamp(max=x.shape[2] - 1)], share)
    return _interpolate(lines, (len(rows), size[1]))


def _interpolate(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class _Resize(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, size: tuple[int, int]) -> Tensor:
        return _interpolate(x, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, size = inputs
        ctx.rows, ctx.columns = (int(x.shape[2]), size[0]), (int(x.shape[3]), size[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, columns = (_weights(*sizes, gradient.dtype, gradient.device) for sizes in (ctx.rows, ctx.columns))
        return torch.matmul(rows, torch.matmul(gradient, columns.T)), None


@lru_cache(maxsize=64)
def _weights(size: int, resized: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """`[size, resized]`: how much of each element goes into each of the resampled line."""
    with torch.inference_mode(False), torch.no_grad():
        line = torch.eye(size, dtype=torch.float64)[None]
        return F.interpolate(line, size=resized, mode="linear", align_corners=False)[0].to(device, dtype)
