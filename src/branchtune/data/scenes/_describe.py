"""Exact labels that describe an image as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._primitives import Floats, exit_box
from ._scene import Scene
from ._trace import Hits
from .classes import CLASSES, PARTS, STRUCTURE, TEXTURES

GRID = 4
"""Cells per side of the grid of the "centres" label."""

_VISIBLE = 0.002


def image_labels(scene: Scene, hits: Hits, height: int, width: int) -> dict[str, NDArray]:
    classes = np.asarray(scene.object_class)
    area = np.bincount(hits.object, minlength=len(classes)) / hits.object.size
    visible = area >= _VISIBLE
    counts = np.bincount(classes[visible], minlength=len(CLASSES)).astype(np.float32)
    camera = scene.camera
    light = camera.axes @ _unit(scene.lights[0].position - camera.position - 2.5 * camera.axes[2])
    heading = camera.yaw + np.array([0.4, 0.0, -0.4])
    ahead = np.stack((np.cos(heading), np.sin(heading), np.zeros(3))).astype(np.float32)
    wall, floor = (scene.materials[scene.room_materials[i]] for i in (_wall_ahead(scene), 4))
    return {
        "presence": (counts > 0).astype(np.float32),
        "counts": counts,
        "centres": _centres(hits, classes, height, width),
        "distance": _distance(hits, classes, counts > 0),
        "camera": np.array(
            [
                camera.position[2],
                camera.pitch,
                camera.roll,
                1 / camera.focal,
                np.sin(4 * camera.yaw),
                np.cos(4 * camera.yaw),
            ],
            np.float32,
        ),
        "room": np.log(
            np.append(exit_box(camera.position, ahead, scene.size.astype(np.float32))[0], scene.size[2])
        ).astype(np.float32),
        "light": light.astype(np.float32),
        "palette": np.concatenate([wall.colours[0], floor.colours[0]]).astype(np.float32),
        "wall_texture": np.array(TEXTURES.index(wall.texture)),
        "floor_texture": np.array(TEXTURES.index(floor.texture)),
    }


def _wall_ahead(scene: Scene) -> int:
    forward = scene.camera.axes[2] * np.array([1, 1, 0])
    face = exit_box(scene.camera.position, forward.astype(np.float32)[:, None], scene.size.astype(np.float32))[1]
    return int(face[0])


def _centres(hits: Hits, classes: NDArray, height: int, width: int) -> Floats:
    """Whether a cell of a GRID x GRID grid holds the centroid of a visible instance of a class or figure part.

    Rows: the classes without `STRUCTURE`, then the parts without the background; flattened with the cells, row-major.
    """
    things = len(CLASSES) - len(STRUCTURE)
    parts = len(PARTS) - 1
    out = np.zeros((things + parts, GRID, GRID), np.float32)
    x = np.tile((np.arange(width) + 0.5) / width, height)
    y = np.repeat((np.arange(height) + 0.5) / height, width)
    key = hits.object.astype(np.int64) * len(PARTS) + hits.part
    for weight, index, row in (
        (hits.object, np.arange(len(classes)), classes - len(STRUCTURE)),
        (key, np.arange(len(classes) * len(PARTS)), np.tile(np.arange(len(PARTS)) - 1, len(classes)) + things),
    ):
        area = np.bincount(weight, minlength=len(index))
        chosen = area >= _VISIBLE * x.size
        chosen &= row >= (0 if weight is hits.object else things)
        column = np.bincount(weight, x, len(index))[chosen] / area[chosen]
        line = np.bincount(weight, y, len(index))[chosen] / area[chosen]
        out[row[chosen], (line * GRID).astype(int), (column * GRID).astype(int)] = 1
    return out.reshape(-1)


def _distance(hits: Hits, classes: NDArray, present: NDArray) -> Floats:
    """Log of each class's mean visible z-depth in metres, NaN where it is not present."""
    semseg = classes[hits.object]
    area = np.bincount(semseg, minlength=len(CLASSES))
    mean = np.bincount(semseg, hits.depth, len(CLASSES)) / np.maximum(area, 1)
    return np.where(present, np.log(np.maximum(mean, 1e-3)), np.nan).astype(np.float32)


def _unit(v: NDArray) -> NDArray:
    return v / np.linalg.norm(v)
