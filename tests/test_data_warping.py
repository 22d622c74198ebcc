"""Bicubic rotation and scaling: the kernel pixel by pixel, and normals that stay unit vectors in their region."""

from __future__ import annotations

import math
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from branchtune.data.transforms import turned_and_scaled
from branchtune.data.warping import warped_cubic
from scene_geometry import plane


def cubic_weight(distance: Tensor) -> Tensor:
    """Keys' kernel with a = -0.75."""
    d, a = distance.abs(), -0.75
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))


def warped_by_hand(image: Tensor, degrees: float, scale: float) -> Tensor:
    """The naive twin: every output pixel is a weighted sum of all pixels, and of zeros around them."""
    height, width = image.shape[-2:]
    c, s = math.cos(math.radians(degrees)) / scale, math.sin(math.radians(degrees)) / scale
    rows, columns = torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64)
    out = torch.empty_like(image)
    for i in range(height):
        for j in range(width):
            y, x = i + 0.5 - height / 2, j + 0.5 - width / 2
            from_x, from_y = c * x - s * y + width / 2 - 0.5, s * x + c * y + height / 2 - 0.5
            weights = cubic_weight(rows - from_y)[:, None] * cubic_weight(columns - from_x)
            out[:, i, j] = (image * weights).sum((1, 2))
    return out


@given(st.floats(-180, 180), st.floats(0.5, 2.0), st.integers(0, 10))
def test_a_cubic_rotation_is_the_kernel_of_the_published_recipe_pixel_by_pixel(degrees: float, scale: float, seed: int):
    image = torch.rand(3, 7, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    expected = warped_by_hand(image, degrees, scale)
    torch.testing.assert_close(warped_cubic(image, degrees, scale), expected, atol=1e-9, rtol=0)
    levels = (255 * image).round().to(torch.uint8)
    found = turned_and_scaled({"image": levels}, {}, degrees, scale, interpolation="cubic")["image"]
    assert found.dtype == torch.uint8
    wanted = warped_by_hand(levels.double(), degrees, scale).clamp(0, 255)
    torch.testing.assert_close(found.double(), wanted, atol=0.51, rtol=0)


@given(st.floats(-180, 180), st.floats(0.5, 2.0))
def test_cubic_normals_that_turn_are_smooth_unit_vectors_and_never_leave_their_region(degrees: float, scale: float):
    sample = plane(0.3, 0.2, -1)
    sample["normals"][:, :10] = torch.nan
    only: Any = {"normals": "normals"}
    nearest = turned_and_scaled(sample, only, degrees, scale)["normals"]
    found = turned_and_scaled(sample, only, degrees, scale, interpolation="cubic")["normals"]
    known = ~found.isnan().any(0)
    assert torch.equal(found.isnan(), nearest.isnan())
    torch.testing.assert_close(found[:, known], nearest[:, known], atol=1e-5, rtol=0)


def test_cubic_normals_lie_between_their_neighbours():
    """Across a crease the nearest pixel jumps, the cubic kernel turns from one side to the other."""
    normals = torch.tensor([[0.6, 0, -0.8], [-0.6, 0, -0.8]]).T[:, None].repeat_interleave(20, 2).expand(3, 40, 40)
    sample, only = {"image": torch.zeros(3, 40, 40), "normals": normals.clone()}, {"normals": "normals"}
    row = turned_and_scaled(sample, only, 0.0, 2.0, interpolation="cubic")["normals"][0, 20]
    nearest = turned_and_scaled(sample, only, 0.0, 2.0)["normals"][0, 20]
    assert nearest.unique().numel() == 2
    assert row.unique().numel() > 2
    assert (row[18:22].diff() < 0).all()
    torch.testing.assert_close(row[[0, -1]], nearest[[0, -1]], atol=1e-6, rtol=0)
