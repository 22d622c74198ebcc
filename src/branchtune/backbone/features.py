"""Raw outputs of a level -> feature maps `[B, C, H, W]`."""

from __future__ import annotations

import math

from torch import Tensor, nn

from branchtune.backbone.spec import Feature, FeatureLayout
from branchtune.errors import UserError


def first_tensor(output: object) -> Tensor:
    """The features among what a module returned: the tensor, or the first of a tuple."""
    if isinstance(output, tuple | list) and output:
        return first_tensor(output[0])
    if not isinstance(output, Tensor):
        raise UserError(
            f"a level's last module returned {type(output).__name__}: end the level at one that returns a tensor"
        )
    return output


def feature_of(raw: Tensor, backbone: nn.Module, image_size: tuple[int, int], channels: int | None) -> Feature:
    """The layout of a level's raw output for one image, from its shape and what timm says of the backbone.

    Args:
        raw: `[1, C, H, W]`, `[1, H, W, C]` or `[1, N, C]`.
        channels: the number of channels that `feature_info` gives for this level, where known.
    """
    if raw.ndim == 4:
        layout = _layout_of_map(raw, backbone, channels)
        c, h, w = raw.shape[1:] if layout == "NCHW" else (raw.shape[3], *raw.shape[1:3])
        return Feature(int(c), int(h), int(w), layout)
    if raw.ndim == 3:
        tokens, prefix = raw.shape[1], int(getattr(backbone, "num_prefix_tokens", 0) or 0)
        grid = _grid(tokens - prefix, image_size)
        if grid is None:
            raise UserError(
                f"a level of {type(backbone).__name__} ends with {tokens} tokens, which is no image grid for an input "
                f"of {image_size[0]}x{image_size[1]}: end the level elsewhere (levels=[...]) or use another image size"
            )
        return Feature(raw.shape[2], *grid, "NLC", prefix)
    raise UserError(f"a level's output has shape {tuple(raw.shape)}: expected [B, C, H, W], [B, H, W, C] or [B, N, C]")


def to_map(raw: Tensor, feature: Feature, image_size: tuple[int, int]) -> Tensor:
    """`raw` in the traced layout -> `[B, C, H, W]`; `image_size` may differ from the traced one."""
    if feature.layout == "NHWC":
        return raw.permute(0, 3, 1, 2)
    if feature.layout == "NLC":
        tokens = raw[:, feature.prefix_tokens :]
        grid = _grid(tokens.shape[1], image_size)
        if grid is None:
            raise UserError(
                f"{tokens.shape[1]} tokens are no grid for images of {image_size[0]}x{image_size[1]}: use another size"
            )
        return tokens.transpose(1, 2).unflatten(2, grid)
    return raw


def _layout_of_map(raw: Tensor, backbone: nn.Module, channels: int | None) -> FeatureLayout:
    declared = str(getattr(backbone, "output_fmt", "") or "").upper()
    if "NHWC" in declared:
        return "NHWC"
    if channels is not None and raw.shape[1] != channels and raw.shape[3] == channels:
        return "NHWC"
    return "NCHW"


def _grid(tokens: int, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The height and width with the aspect ratio of the image whose product is `tokens`."""
    height = round(math.sqrt(tokens * image_size[0] / image_size[1])) if tokens > 0 else 0
    for h in (height, height - 1, height + 1):
        if (
            h > 0
            and tokens % h == 0
            and abs(h / (tokens // h) - image_size[0] / image_size[1]) < 0.5 * h / (tokens // h)
        ):
            return h, tokens // h
    return None
