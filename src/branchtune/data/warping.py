"""Bicubic rotation and scaling about the centre, for which torchvision has no kernel on tensors."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample


def warped_cubic(image: Tensor, degrees: float, scale: float) -> Tensor:
    """Turn and scale about the centre without changing the size; outside of the image there are zeros.

    The kernel is that of OpenCV (a = -0.75), as in the published recipe. At the border it reaches into the zeros, and
    beside a sharp edge it overshoots: nothing is clamped.

    Args:
        image: floats `[C, H, W]`.
        degrees: counter-clockwise.
        scale: above 1 enlarges.
    """
    height, width = image.shape[-2:]
    cos, sin = (f(math.radians(degrees)) / scale for f in (math.cos, math.sin))
    # Where each pixel comes from; both axes count from -1 to 1 whatever their length.
    matrix = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    grid = affine_grid(image.new_tensor(matrix)[None], [1, *image.shape], align_corners=False)
    return grid_sample(image[None], grid, mode="bicubic", padding_mode="zeros", align_corners=False)[0]
