"""How the images of a backbone are normalised."""

from __future__ import annotations

from torch import nn


def image_statistics(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, of pixels in [0, 1], that the backbone was trained with.

    ImageNet's where timm's configuration of the backbone does not say.
    """
    config = getattr(backbone, "pretrained_cfg", None) or {}
    return tuple(config.get("mean", (0.485, 0.456, 0.406))), tuple(config.get("std", (0.229, 0.224, 0.225)))
