"""The weight of a layer with an adapter folded into it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from branchtune.adapters.adapter import Adapter
from branchtune.backbone.spec import Site


def weight_problem(module: Any) -> str | None:
    """Why changing the layer's weight is not the same as adding to its output; None where it is.

    A clause that goes on after the name of the layer, such as "layers.0.conv ...".
    """
    if "weight" not in module._parameters:
        return "computes its weight anew in every call (a parametrization, or weight normalisation)"
    weight = module.weight.detach()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            x = torch.randn(2, module.in_features, generator=generator).to(weight)
            expected = F.linear(x, weight, module.bias)
        else:
            size = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            x = torch.randn(2, module.in_channels, *size, generator=generator).to(weight)
            geometry = (module.stride, module.padding, module.dilation, module.groups)
            expected = F.conv2d(x, weight, module.bias, *geometry)
        found = type(module).forward(module, x)
    scale = expected.abs().max().clamp_min(1e-12)
    tolerance = 1e-3 if weight.dtype.itemsize >= 4 else 5e-2
    if found.shape == expected.shape and torch.allclose(found / scale, expected / scale, rtol=0, atol=tolerance):
        return None
    return f"({type(module).__name__}) does more than multiply by its weight"


def set_merged_weight(module: Any, adapter: Adapter, site: Site, node: nn.Module) -> None:
    """Give `module`, a copy, the weight W + dW of `node`; the weight that it had is left as it was."""
    weight = module.weight.detach()
    wide = _wide(weight)
    change = adapter.delta_weight(site, copy.deepcopy(node).to(wide)).detach()
    module.weight = nn.Parameter((weight.to(wide) + change).to(weight.dtype), requires_grad=False)


def _wide(weight: Tensor) -> torch.dtype:
    """Sums are rounded once, to the weight's own precision; some devices have no float64."""
    return torch.float64 if weight.device.type in ("cpu", "cuda") else torch.promote_types(weight.dtype, torch.float32)
