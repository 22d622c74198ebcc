"""Casts rays into a scene: what each pixel sees, and which points a light reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._primitives import Floats, Primitive, exit_box
from ._scene import Camera, Light, Scene
from ._solids import Solids
from .classes import CLASS

_NEAR = 0.05
_GAP = 4e-3
_FLAT = {CLASS[name] for name in ("window", "door", "picture", "rug")}


@dataclass(slots=True)
class Hits:
    """What the pixels of an image see, row-major.

    Args:
        rays: world ray directions with unit z in the camera frame, so that a ray parameter is the z-depth, [3, n].
        depth: z-depth, metres, [n].
        normals: outward unit normals in the world frame, [3, n].
        uv: surface coordinates, metres, [2, n].
        surface: a number per smooth surface (face of a box, side of a cylinder, ...), [n].
        solid, material, object, part: index of the solid (-1: the room), its material, object and figure part, [n].
    """

    rays: Floats
    depth: Floats
    normals: Floats
    uv: Floats
    surface: NDArray[np.int32]
    solid: NDArray[np.int16]
    material: NDArray[np.int16]
    object: NDArray[np.int16]
    part: NDArray[np.int8]


def pixel_rays(camera: Camera, height: int, width: int) -> Floats:
    """Camera-frame directions of the pixel centres with unit z, [3, height, width].

    The focal length in pixels is `camera.focal * max(height, width) / 2`; the principal point is the image's centre.
    """
    unit = 2 / (camera.focal * max(height, width))
    x = (np.arange(width) + 0.5 - width / 2) * unit
    y = (np.arange(height) + 0.5 - height / 2) * unit
    rays = np.ones((3, height, width), np.float32)
    rays[0], rays[1] = x, y[:, None]
    return rays


def cast(scene: Scene, height: int, width: int) -> Hits:
    """The nearest surface along each pixel's ray."""
    camera = scene.camera
    axes = camera.axes.T.astype(np.float32)
    rays = axes @ pixel_rays(camera, height, width).reshape(3, -1)
    grid = rays.reshape(3, height, width)
    far, face = exit_box(camera.position, rays, scene.size.astype(np.float32))
    depth = far.reshape(height, width)
    solid = np.full((height, width), -1, np.int16)
    solids = Solids(scene.primitives, camera.position)
    views = {
        index: np.s_[top:bottom, left:right]
        for index, (top, bottom, left, right) in enumerate(_windows(solids, camera, height, width).tolist())
        if top < bottom and left < right
    }
    seen_by = {index: grid[:, view[0], view[1]].reshape(3, -1) for index, view in views.items()}
    for index, t in solids.hits(seen_by):
        seen = depth[views[index]]
        t = t.reshape(seen.shape)
        nearer = t < seen
        np.copyto(seen, t, where=nearer)
        np.copyto(solid[views[index]], index, where=nearer)
    return _describe(scene, solids, rays, far, solid.reshape(-1), face)


def _windows(solids: Solids, camera: Camera, height: int, width: int) -> NDArray[np.int64]:
    """For each solid the rows and columns (top, bottom, left, right) outside of which it cannot be seen, [p, 4]."""
    x, y, z = np.moveaxis(solids.corners @ camera.axes.T, -1, 0)
    scale = camera.focal * max(height, width) / 2
    behind = z < _NEAR
    z = np.maximum(z, _NEAR)
    u, v = x / z * scale + width / 2, y / z * scale + height / 2
    window = np.stack((v.min(1), v.max(1), u.min(1), u.max(1)), 1)
    window[behind.any(1)] = (0, height, 0, width)
    window[behind.all(1)] = 0
    limits = np.array([height, height, width, width])
    return np.clip(window + np.array([-1, 1, -1, 1]), 0, limits).astype(np.int64)


def _describe(
    scene: Scene,
    solids: Solids,
    rays: Floats,
    depth: Floats,
    solid: NDArray[np.int16],
    face: NDArray[np.intp],
) -> Hits:
    count = depth.size
    normals = np.zeros((3, count), np.float32)
    axis, upper = face // 2, face % 2
    normals[axis, np.arange(count)] = 1 - 2 * upper
    p = scene.camera.position.astype(np.float32)[:, None] + depth * rays
    uv = np.stack((np.where(axis == 0, p[1], p[0]), np.where(axis == 2, p[1], p[2])))
    surface = face.astype(np.int32)
    material = np.asarray(scene.room_materials, np.int16)[face]
    thing = np.array([0, 0, 0, 0, 1, 2], np.int16)[face]
    part = np.zeros(count, np.int8)
    at = np.flatnonzero(solid >= 0)
    index = solid[at].astype(np.intp)
    normals[:, at], uv[:, at], local_face = solids.surfaces(index, rays[:, at], depth[at])
    surface[at] = 8 * (index + 1) + local_face
    table = np.array([(s.material, s.object, s.part) for s in scene.primitives], np.int16).reshape(-1, 3)
    material[at], thing[at], part[at] = table[index].T
    return Hits(rays, depth, normals, uv, surface, solid, material, thing, part)


def lit(scene: Scene, light: Light, to_light: Floats, distance: Floats, facing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points see the light; only those that `facing` [n] marks are tested, the others stay dark.

    Args:
        to_light: unit vectors from the points to the light, [3, n].
        distance: between the points and the light, metres, [n].
    """
    solids = Solids([s for s in scene.primitives if _casts(scene, s)], light.position)
    # A solid shades only points inside the cone from the light around its bounding sphere. Sorted by the cosine with
    # one axis, those points lie in one slice.
    chosen = np.flatnonzero(facing)
    chosen = chosen[np.argsort(-to_light[0, chosen])]
    unit, distance = -to_light[:, chosen], distance[chosen]
    reach = np.sqrt((solids.towards**2).sum(1))
    axes = (solids.towards / reach[:, None]).astype(np.float32)
    cosine = np.where(reach > solids.radius, np.sqrt(np.maximum(1 - (solids.radius / reach) ** 2, 0)), -1)
    angle, spread = np.arccos(np.clip(axes[:, 0], -1, 1)), np.arccos(cosine)
    limits = np.cos(np.stack((np.minimum(angle + spread, np.pi), np.maximum(angle - spread, 0)), 1))
    slices = np.searchsorted(unit[0], (limits + np.array([-1e-5, 1e-5])).astype(np.float32)).tolist()
    tested = {}
    for index, (start, stop) in enumerate(slices):
        inside = axes[index] @ unit[:, start:stop] > cosine[index]
        inside &= distance[start:stop] > reach[index] - solids.radius[index]
        at = start + np.flatnonzero(inside)
        if at.size:
            tested[index] = at
    dark = np.zeros(chosen.size, bool)
    for index, t in solids.hits({index: unit[:, at] for index, at in tested.items()}):
        at = tested[index]
        dark[at] |= t < distance[at] - _GAP
    visible = facing.copy()
    visible[chosen[dark]] = False
    return visible


def _casts(scene: Scene, solid: Primitive) -> bool:
    return scene.object_class[solid.object] not in _FLAT and scene.materials[solid.material].glow == 0
