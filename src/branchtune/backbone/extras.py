"""Shared extras: small parts of the backbone that may train beside the adapters, shared by all groups."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from branchtune.backbone.spec import BackboneSpec
from branchtune.errors import UserError, unknown

EXTRAS = ("norms", "patch_embed", "relative_position", "patch_merging")


def extra_parameters(backbone: nn.Module, spec: BackboneSpec, extras: Sequence[str]) -> set[str]:
    """Names of the backbone's parameters that belong to the extras; no parameter belongs to two of them.

    Args:
        extras: any of "norms" (normalisation layers of the levels), "patch_embed" (with its norm), "relative_position"
            (bias tables and position networks), "patch_merging" (the reductions between stages, without their norms).

    Raises:
        UserError: an unknown extra, or one that this backbone has no parameter for.
    """
    if isinstance(extras, str) or not isinstance(extras, Sequence):
        example = extras if isinstance(extras, str) else "norms"
        raise UserError(f"extras={extras!r}: pass a list, such as extras=[{example!r}]")
    names: set[str] = set()
    norms = _norms(backbone)
    for extra in extras:
        if extra not in EXTRAS:
            raise unknown("extra", extra, EXTRAS)
        found = {name for name in spec.parameters if _belongs(name, extra, norms)}
        if not found:
            raise UserError(f"{spec.name} has no {extra!r} parameters to train: leave it out of extras")
        names |= found
    return names


def _norms(backbone: nn.Module) -> set[str]:
    return {
        name
        for name, module in backbone.named_modules()
        if "norm" in type(module).__name__.lower() and list(module.parameters(recurse=False))
    }


def _belongs(name: str, extra: str, norms: set[str]) -> bool:
    module, _, leaf = name.rpartition(".")
    in_patch_embed = name.startswith(("patch_embed", "stem"))
    in_merging = "downsample" in module.split(".")
    positional = "relative_position" in leaf or "rel_pos" in leaf or ".cpb_mlp." in name
    return {
        "patch_embed": in_patch_embed,
        "norms": module in norms and not in_patch_embed,
        "relative_position": positional,
        "patch_merging": in_merging and module not in norms,
    }[extra]
