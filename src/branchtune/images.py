"""Images that a model is called with: refused before they run, or explained after they failed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from branchtune.backbone.check import image_channels, placement
from branchtune.backbone.spec import BackboneSpec
from branchtune.errors import UserError


def check_images(images: Any, backbone: nn.Module) -> None:
    """Refuse what is no batch of images.

    Raises:
        UserError: shows what was given and what was expected.
    """
    if not isinstance(images, Tensor):
        raise UserError(f"images are of type {type(images).__name__}: pass a torch tensor [B, 3, H, W]")
    channels = image_channels(backbone)
    shape = tuple(images.shape)
    if images.ndim != 4 or not shape[0] or shape[1] != channels:
        last = images.ndim == 4 and shape[1] != channels and shape[3] == channels
        way = " (channels first: images.permute(0, 3, 1, 2))" if last else ""
        raise UserError(f"images have shape {shape}: expected [B, {channels}, H, W] with B of at least 1{way}")
    if not images.is_floating_point():
        raise UserError(
            f"images are {str(images.dtype).removeprefix('torch.')}: pass floats, normalised as the backbone expects"
        )


def explain(error: Exception, images: Tensor, backbone: nn.Module, spec: BackboneSpec) -> UserError | None:
    """Why the backbone failed on `images`; None where they are like those that it was traced with."""
    if isinstance(error, UserError | torch.OutOfMemoryError):
        return None
    like = placement(backbone)
    size = (images.shape[2], images.shape[3])
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    if images.device != like.device:
        return UserError(
            f"images are on {images.device}, the model is on {like.device}: use images.to({str(like.device)!r})"
        )
    if images.dtype != like.dtype and not is_autocast(images.device):
        found, expected = (str(t.dtype).removeprefix("torch.") for t in (images, like))
        return UserError(f"images are {found}, the model is {expected}: use images.to(torch.{expected})")
    if size == spec.image_size:
        return None
    traced = "x".join(map(str, spec.image_size))
    return UserError(
        f"{spec.name} cannot take images of {size[0]}x{size[1]}: {reason} (it was traced with {traced}; choose another "
        "image_size, or create the backbone with img_size=)"
    )


def is_autocast(device: torch.device) -> bool:
    """Whether operations on this device are under autocast; devices that have none ("meta") are not."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
