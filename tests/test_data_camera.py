"""Transformed labels of a scene are those of the scene that another camera renders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from branchtune.data.scenes import render
from branchtune.data.scenes._layout import compose
from branchtune.data.transforms import flip_horizontal, resized_crop, turned_and_scaled
from scene_geometry import KINDS, plane, scene


def viewing_rays(sample: dict[str, Any]) -> Tensor:
    """Rays with unit z, from the field of view that the camera label states."""
    height, width = sample["depth"].shape
    unit = 2 * float(sample["camera"][3]) / max(height, width)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([(x - width / 2) * unit, (y - height / 2) * unit, torch.ones(height, width)])


def rendered_by(change: Callable[[Any], None], height: int, width: int, index: int = 3) -> dict[str, Any]:
    """The scene with another camera."""

    def compose_and_change(rng: np.random.Generator) -> Any:
        composed = compose(rng)
        change(composed.camera)
        return composed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "compose", compose_and_change)
        return scene(height, width, index)


def test_a_rendered_scene_flipped_is_exact_and_still_faces_the_camera():
    before = scene()
    flipped = flip_horizontal(before, KINDS)
    for key in ("semseg", "parts", "saliency", "depth"):
        assert torch.equal(flipped[key], before[key].flip(-1))
    sign = torch.tensor([-1.0, 1, 1])[:, None, None]
    assert torch.equal(flipped["normals"], before["normals"].flip(-1) * sign)
    # The principal point is the image's centre: the rays of the mirrored camera are those of the camera.
    assert (viewing_rays(before) * flipped["normals"]).sum(0).max() < 1e-3


@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_flipped_scene_is_what_a_mirrored_camera_sees(index: int):
    def mirror(camera: Any) -> None:
        camera.axes[0] *= -1

    flipped, seen = flip_horizontal(scene(48, 60, index), KINDS), rendered_by(mirror, 48, 60, index)
    for key in ("semseg", "parts", "saliency"):
        assert torch.equal(flipped[key], seen[key]), key
    for key in ("depth", "normals"):
        torch.testing.assert_close(flipped[key], seen[key], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by", ["window", "scale"])
@pytest.mark.parametrize("index", [0, 3, 5])
def test_a_zoomed_scene_is_what_a_longer_focal_length_sees_but_nearer(by: str, index: int):
    """An odd factor on odd sides: every third pixel of the zoomed image looks along a ray of the one before."""

    def zoom(camera: Any) -> None:
        camera.focal *= 3

    before, seen = scene(45, 63, index), rendered_by(zoom, 45, 63, index)
    if by == "window":
        zoomed = resized_crop(before, KINDS, (15, 21, 15, 21), (45, 63), 3.0)
    else:
        zoomed = turned_and_scaled(before, KINDS, 0.0, 3.0)
    same = (..., slice(1, None, 3), slice(1, None, 3))
    assert torch.equal(zoomed["semseg"][same], seen["semseg"][same].to(zoomed["semseg"].dtype))
    # A lens leaves everything where it is; the zoom of the recipe stands for a camera that is nearer.
    torch.testing.assert_close(zoomed["depth"][same], seen["depth"][same] / 3, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(zoomed["normals"][same], seen["normals"][same], atol=1e-4, rtol=0)


def test_what_moves_beyond_every_depth_is_unknown():
    before = {**plane(0.0, 0.0, -1), "depth": torch.full((40, 40), 700.0)}
    before["depth"][:, :20] = 800.0
    after = turned_and_scaled(before, KINDS, 0.0, 0.75)["depth"]
    assert after[10:30, 22:33].sub(700 / 0.75).abs().max() < 1e-3
    assert after[10:30, 7:18].isnan().all()
