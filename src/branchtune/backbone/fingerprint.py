"""Recognise the weights of a backbone: exactly, by a hash, and up to rounding, by two numbers per tensor."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

# Position embeddings resampled to another image size differ between processors by about 1e-7 of their norm; one step
# of training at a learning rate of 1e-4 moves a weight by far more than this.
_ROUNDING = 1e-5


def weights_fingerprint(backbone: nn.Module, names: Collection[str]) -> str:
    """SHA-256 over the parameters named and the buffers; the same on every device and in any order.

    Args:
        names: of the parameters that count, such as `BackboneSpec.parameters`.
    """
    digest = hashlib.sha256()
    for name, tensor, computed in _telling_tensors(backbone, names):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if not computed:
            flat = tensor.cpu().contiguous().flatten()
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_sketch(backbone: nn.Module, names: Collection[str]) -> dict[str, Any]:
    """Per tensor of the fingerprint its shape, norm and one fixed projection, ready for JSON.

    Where two fingerprints differ, `sketch_difference` says which tensor, or that it is a matter of rounding.
    """
    found = list(_telling_tensors(backbone, names))
    weights = _weyl(max((tensor.numel() for _, tensor, _ in found), default=0))
    return {
        name: [list(tensor.shape), *((None, None) if computed else _norm_and_projection(tensor, weights))]
        for name, tensor, computed in found
    }


def sketch_difference(sketch: Mapping[str, Any], backbone: nn.Module, names: Collection[str]) -> str | None:
    """The first tensor in which `backbone` differs from `sketch` by more than rounding, with how; or None."""
    own = weights_sketch(backbone, names)
    for name in sorted(sketch.keys() | own.keys()):
        if name not in own or name not in sketch:
            return f"it {'has no' if name not in own else 'should have no'} {name}"
        (shape, norm, projection), (own_shape, own_norm, own_projection) = sketch[name], own[name]
        if shape != own_shape:
            return f"{name} has shape {own_shape}, not {shape}"
        if norm is not None and not (
            math.isclose(norm, own_norm, rel_tol=_ROUNDING)
            and math.isclose(projection, own_projection, rel_tol=0, abs_tol=_ROUNDING * norm)
        ):
            return f"{name} has other values"
    return None


def classifiers(backbone: nn.Module) -> set[str]:
    """The first component of the names in a classifier, as timm's configuration has it: no feature depends on it."""
    cfg = getattr(backbone, "pretrained_cfg", None) or {}
    found = cfg.get("classifier") or ()
    return {name.partition(".")[0] for name in ([found] if isinstance(found, str) else found)}


def _telling_tensors(backbone: nn.Module, names: Collection[str]) -> Iterator[tuple[str, Tensor, bool]]:
    """The tensors that tell one backbone from another, by name: name, tensor, whether the model computes it itself.

    Left out are the classifier's buffers and BatchNorm's counters, on which no feature depends. Of computed (not
    persistent) buffers only the shape counts: it shows a constructor's argument, the values may differ in rounding.
    """
    wanted, heads = set(names), classifiers(backbone)
    stored = backbone.state_dict().keys()
    found: dict[str, tuple[Tensor, bool]] = {
        name: (p, False) for name, p in backbone.named_parameters() if name in wanted
    }
    for name, buffer in backbone.named_buffers():
        if name.partition(".")[0] not in heads and not name.endswith("num_batches_tracked"):
            found[name] = (buffer, name not in stored)
    for name in sorted(found):
        tensor, computed = found[name]
        yield name, tensor.detach(), computed


def _weyl(count: int) -> Tensor:
    """Weyl's sequence: fixed signs and sizes in [-1, 1) without a random generator, the same on every platform."""
    return torch.arange(1, count + 1, dtype=torch.float64).mul_(0.6180339887498949).frac_().mul_(2).sub_(1)


def _norm_and_projection(tensor: Tensor, weights: Tensor) -> tuple[float, float]:
    flat = tensor.cpu().double().flatten()
    return float(flat.norm()), float(flat @ weights[: len(flat)])
