"""What can be a backbone at all, before it is traced."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.spec import BackboneSpec
from branchtune.errors import UserError

TRAINABLE = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups")


def check_module(backbone: Any) -> None:
    """Refuse what is no module, and compiled modules, in which hooks would not run.

    Raises:
        UserError: says what to pass instead.
    """
    if isinstance(backbone, str):
        raise UserError(f"backbone={backbone!r} is a text: pass a module, such as create_backbone({backbone!r})")
    if not isinstance(backbone, nn.Module):
        raise UserError(f"backbone is of type {type(backbone).__name__}: pass a module (torch.nn.Module)")
    for name, module in backbone.named_modules():
        if isinstance(getattr(module, "_orig_mod", None), nn.Module):
            what = f"module {name!r} of the backbone" if name else "the backbone"
            raise UserError(
                f"{what} is compiled by torch.compile, past which no branch can grow: pass the uncompiled module"
            )


def placement(backbone: nn.Module) -> Tensor:
    """A tensor with the device and the precision of the backbone: its first parameter of a precision to train in."""
    return next((p for p in backbone.parameters() if p.dtype in TRAINABLE), torch.zeros(()))


def image_channels(backbone: nn.Module) -> int:
    """Channels of the images that it takes: its attribute `in_chans`, which timm's models have.

    Without it those of timm's configuration, which are the published weights' own; 3 where there is none.
    """
    own = getattr(backbone, "in_chans", None)
    if isinstance(own, int) and own > 0:
        return own
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return int(config.get("input_size", (3,))[0])


def check_traced(backbone: nn.Module, spec: BackboneSpec) -> None:
    """Refuse a backbone that `spec` was not traced from, or that recomputes parts of its forward pass.

    Raises:
        UserError: names the module that is missing, or how to switch the recomputation off.
    """
    names = {name for name, _ in backbone.named_modules()}
    for name in (name for level in spec.levels for name in (level.start, level.end)):
        if name not in names:
            raise UserError(
                f"{type(backbone).__name__} has no module {name!r}: the spec was traced from another backbone, "
                f"{spec.name}"
            )
    for module in backbone.modules():
        for flag in ("grad_checkpointing", "gradient_checkpointing"):
            if getattr(module, flag, False) is True:
                raise UserError(
                    f"{spec.name} has gradient checkpointing switched on, whose recomputation would run without the "
                    "adapters: switch it off (backbone.set_grad_checkpointing(False)) and use checkpoint_levels"
                )


def geometry_difference(spec: BackboneSpec, backbone: nn.Module) -> str | None:
    """The first convolution that works otherwise than in the traced backbone, which no weight shows; or None."""
    for site in spec.sites:
        module = backbone.get_submodule(site.name)
        if site.kind == "conv2d" and isinstance(module, nn.Conv2d):
            for key in _GEOMETRY:
                if getattr(module, key) != getattr(site, key):
                    return f"{site.name} has {key} {getattr(module, key)}, not {getattr(site, key)}"
    return None
