"""Similarity of two gradients, with the three normalisations of arXiv 2509.19602.

The paper divides both gradients by |g| + |g'| before taking their cosine. With |.| the norm of the whole vector that is
the plain cosine; taken element by element or per parameter tensor it also penalises gradients of different size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def similarity(g: Tensor, h: Tensor, normalize: str, sizes: Sequence[int] | None = None) -> Tensor:
    """cos(g / (|g| + |h|), h / (|g| + |h|)), with 0 / 0 = 0 throughout.

    Args:
        g, h: `[..., P]`.
        normalize: "none", "elementwise" or "per_tensor".
        sizes: number of elements of each parameter tensor, for "per_tensor"; default: one tensor.

    Returns:
        `[...]`, in [-1, 1].

    >>> g, h = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])
    >>> [round(similarity(g, h, kind).item(), 4) for kind in ("none", "elementwise")]
    [0.7071, 0.4472]
    """
    return cosine_of(products(g, h, normalize, sizes or [g.shape[-1]]).sum(-1))


def products(g: Tensor, h: Tensor, normalize: str, sizes: Sequence[int]) -> Tensor:
    """<u, v>, <u, u> and <v, v> of the normalised gradients u and v, per parameter tensor: `[3, ..., len(sizes)]`.

    Sums over the tensors of a level, or over all of them, are what `cosine_of` takes.
    """
    if normalize == "elementwise":
        total = g.abs() + h.abs()
        g, h = _divide(g, total), _divide(h, total)
    sums = torch.stack(
        [
            torch.stack([part.sum(-1) for part in product.split(list(sizes), -1)], -1)
            for product in (g * h, g * g, h * h)
        ]
    )
    if normalize == "per_tensor":
        return _divide(sums, (sums[1].sqrt() + sums[2].sqrt()).square().expand_as(sums))
    return sums


def cosine_of(sums: Tensor) -> Tensor:
    """<u, v> / sqrt(<u, u> <v, v>) from `[3, ...]`; 0 where a gradient vanishes."""
    return _divide(sums[0], sums[1].sqrt() * sums[2].sqrt())


def _divide(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b == 0, torch.zeros_like(a), a / torch.where(b == 0, torch.ones_like(b), b))
