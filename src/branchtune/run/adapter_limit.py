"""`adapter_share` as a number of parameters."""

from __future__ import annotations

from torch import nn

from branchtune.backbone.extras import extra_parameters
from branchtune.backbone.spec import BackboneSpec
from branchtune.config import RunConfig
from branchtune.errors import UserError


def adapter_limit(config: RunConfig, backbone: nn.Module, spec: BackboneSpec) -> int | None:
    """What `adapter_share` leaves to the adapters beside the extras; None where it is not set.

    Raises:
        UserError: it leaves nothing.
    """
    share = config.adapter_share
    if share is None:
        return None
    sizes = {name: parameter.numel() for name, parameter in backbone.named_parameters()}
    inside = sum(sizes[name] for name in spec.parameters)
    extras = sum(sizes[name] for name in extra_parameters(backbone, spec, config.extras))
    limit = int(share * inside) - extras
    if limit < 1:
        raise UserError(
            f"adapter_share={share:g} of the backbone's {inside:,} parameters leaves nothing for adapters beside "
            f"{extras:,} parameters of extras: raise it, or train fewer extras"
        )
    return limit
