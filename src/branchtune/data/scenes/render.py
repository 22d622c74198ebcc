"""Renders one scene with all its labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from branchtune.errors import UserError, unknown

from ._describe import image_labels
from ._labels import dense_labels
from ._layout import compose
from ._shade import shade
from ._trace import cast

SPLITS = {"train": 0, "val": 1, "test": 2}

DENSE_LABELS = ("semseg", "parts", "saliency", "normals", "depth", "edge")

IMAGE_LABELS = (
    "presence",
    "counts",
    "centres",
    "distance",
    "camera",
    "room",
    "light",
    "palette",
    "wall_texture",
    "floor_texture",
)

LABELS = (*DENSE_LABELS, *IMAGE_LABELS)


def render_scene(seed: int, index: int, height: int, width: int, split: str = "train") -> dict[str, NDArray[Any]]:
    """Render a scene and its labels: a function of (seed, split, index); the size only changes the sampling.

    Geometry is hit in closed form, so that depth and normals are exact at the pixel centres. The image carries cast
    shadows, random exposure and sensor noise, and no anti-aliasing.

    Dense labels:

    - "image": float32 [3, H, W] in [0, 1], not normalised.
    - "semseg": int64 [H, W], the classes in `CLASSES`.
    - "parts": int64 [H, W], the figure parts in `PARTS`; all 255 (ignored) where no figure is visible.
    - "saliency": float32 [H, W] in {0, 1}: the most prominent figures and movable things. Every instance of a class
      in `SALIENT` that covers 0.5 % of the image scores sqrt(area) * exp(-d^2 / 0.32), twice that for a person (d:
      distance of its centroid from the image's centre, in image sides); the best and all that reach 0.6 of its score
      are salient.
    - "normals": float32 [3, H, W], outward unit normals in the camera frame x right, y down, z forward. Their product
      with the pixel's viewing ray is negative; hence z < 0 but for surfaces seen at a grazing angle far off the
      optical axis.
    - "depth": float32 [H, W], z-depth in metres: along the optical axis, not along the ray.
    - "edge": float32 [H, W] in {0, 1}, about one pixel wide: occlusion edges on the nearer surface, and creases sharper
      than about 35 degrees.

    Labels of the image as a whole (a class is present if one of its instances covers 0.2 % of the image):

    - "presence" float32 [16] in {0, 1}; "counts" float32 [16], instances of each class.
    - "centres": float32 [19 * 16] in {0, 1}: for each class without `STRUCTURE`, then for each figure part, whether
      the centroid of an instance lies in a cell of a 4 x 4 grid.
    - "distance": float32 [16], log of each class's mean z-depth; NaN where it is not present.
    - "camera": float32 [6]: height (m), pitch (rad, down), roll (rad), tangent of half the field of view (of the longer
      side), sine and cosine of four times the yaw.
    - "room": float32 [4]: log of the distances to the walls at 0.4 rad to the left, ahead and at 0.4 rad to the
      right, and of the ceiling's height.
    - "light": float32 [3], unit vector to the main light in the camera frame, from a point 2.5 m ahead.
    - "palette": float32 [6], linear RGB of the wall ahead and of the floor.
    - "wall_texture", "floor_texture": int64 scalars, the kinds in `TEXTURES`.

    Args:
        seed: seed of a family of scenes, >= 0.
        index: number of the scene, >= 0.
        height: image height in pixels.
        width: image width in pixels.
        split: "train", "val" or "test".

    Raises:
        UserError: unknown split, negative seed or index, size below 1.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if min(seed, index) < 0:
        raise UserError(f"scene seed {seed}, index {index}: both must be at least 0")
    if min(height, width) < 1:
        raise UserError(f"scene size {height}x{width}: both sides must be at least 1")
    layout, sensor = (np.random.default_rng(s) for s in np.random.SeedSequence((seed, SPLITS[split], index)).spawn(2))
    scene = compose(layout)
    hits = cast(scene, height, width)
    return {
        "image": shade(scene, hits, height, width, sensor),
        **dense_labels(scene, hits, height, width),
        **image_labels(scene, hits, height, width),
    }
