"""Attention of any number of dimensions is computed in four, with the same values."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from branchtune.shipping.attention import FourDimensionalAttention


class Attention(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.3)


@pytest.mark.parametrize(
    ("lead", "mask", "traced"),
    [
        ((2,), None, 4),
        ((2,), (2, 1, 5), 4),
        ((2,), (3, 5), 4),
        ((2, 3), (2, 1, 3, 5), 4),
        ((2, 3, 4), None, 4),
        ((2, 3, 4), (3, 5), 5),
    ],
)
def test_values_stay_and_dimensions_are_four(lead: tuple[int, ...], mask: Any, traced: int) -> None:
    q, k, v = torch.randn(*lead, 3, 6), torch.randn(*lead, 5, 6), torch.randn(*lead, 5, 6)
    allowed = None if mask is None else torch.rand(mask) > 0.3
    if allowed is not None:
        allowed[..., 0] = True
    with FourDimensionalAttention():
        found = Attention()(q, k, v, allowed)
        program = torch.export.export(Attention(), (q, k, v, allowed), strict=False)
    torch.testing.assert_close(found, Attention()(q, k, v, allowed))
    calls = [node for node in program.graph.nodes if "scaled_dot_product_attention" in str(node.target)]
    assert [node.args[0].meta["val"].ndim for node in calls] == [traced]
