"""Casts rays into a scene: what each pixel sees, and which points a light reaches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._primitives import Floats, Primitive, exit_box
from ._scene import Camera, Light, Scene, Vector
from .classes import CLASS

_NEAR = 0.05
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
    rays = (axes @ pixel_rays(camera, height, width).reshape(3, -1)).reshape(3, height, width)
    depth, face = exit_box(camera.position, rays.reshape(3, -1), scene.size.astype(np.float32))
    depth = depth.reshape(height, width)
    solid = np.full((height, width), -1, np.int16)
    for index, (top, bottom, left, right) in enumerate(_windows(scene, height, width)):
        if top >= bottom or left >= right:
            continue
        view = np.s_[top:bottom, left:right]
        directions = np.ascontiguousarray(rays[:, top:bottom, left:right]).reshape(3, -1)
        t = scene.primitives[index].intersect(camera.position, directions).reshape(bottom - top, right - left)
        nearer = t < depth[view]
        depth[view][nearer] = t[nearer]
        solid[view][nearer] = index
    return _describe(scene, rays.reshape(3, -1), depth.reshape(-1), solid.reshape(-1), face)


def _windows(scene: Scene, height: int, width: int) -> NDArray[np.int64]:
    """For each solid the rows and columns (top, bottom, left, right) outside of which it cannot be seen, [n, 4]."""
    if not scene.primitives:
        return np.zeros((0, 4), np.int64)
    camera = scene.camera
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    half = np.array([p.bounds() for p in scene.primitives])
    axes = np.array([p.axes for p in scene.primitives])
    centre = np.array([p.centre for p in scene.primitives]) - camera.position
    points = centre[:, None] + np.einsum("pij,pkj->pki", axes, corners * half[:, None])
    x, y, z = np.moveaxis(points @ camera.axes.T, -1, 0)
    scale = camera.focal * max(height, width) / 2
    behind = z < _NEAR
    z = np.maximum(z, _NEAR)
    u, v = x / z * scale + width / 2, y / z * scale + height / 2
    window = np.stack((v.min(1), v.max(1), u.min(1), u.max(1)), 1)
    window[behind.any(1)] = (0, height, 0, width)
    window[behind.all(1)] = 0
    limits = np.array([height, height, width, width])
    return np.clip(window + np.array([-1, 1, -1, 1]), 0, limits).astype(np.int64)


def _describe(scene: Scene, rays: Floats, depth: Floats, solid: NDArray[np.int16], face: NDArray[np.intp]) -> Hits:
    count = depth.size
    origin = scene.camera.position
    normals = np.zeros((3, count), np.float32)
    axis, upper = face // 2, face % 2
    normals[axis, np.arange(count)] = np.where(upper, -1, 1)
    p = origin.astype(np.float32)[:, None] + depth * rays
    uv = np.stack((np.where(axis == 0, p[1], p[0]), np.where(axis == 2, p[1], p[2])))
    surface = face.astype(np.int32)
    material = np.asarray(scene.room_materials, np.int16)[face]
    thing = np.array([0, 0, 0, 0, 1, 2], np.int16)[face]
    part = np.zeros(count, np.int8)
    for index, pixels in _groups(solid):
        primitive = scene.primitives[index]
        n, coordinates, local_face = primitive.surface(origin, rays[:, pixels], depth[pixels])
        normals[:, pixels], uv[:, pixels] = n, coordinates
        surface[pixels] = 8 * (index + 1) + local_face
        material[pixels], thing[pixels], part[pixels] = primitive.material, primitive.object, primitive.part
    return Hits(rays, depth, normals, uv, surface, solid, material, thing, part)


def _groups(index: NDArray[np.int16]) -> list[tuple[int, NDArray[np.intp]]]:
    """The positions of each value >= 0."""
    order = np.argsort(index, kind="stable")
    values = index[order]
    cuts = np.flatnonzero(np.diff(values)) + 1
    return [(int(index[g[0]]), g) for g in np.split(order, cuts) if index[g[0]] >= 0]


def lit(scene: Scene, light: Light, points: Floats, facing: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points [3, n] see the light; only those that `facing` [n] marks are tested, the others stay dark."""
    origin = light.position
    chosen = np.flatnonzero(facing)
    rays = points[:, chosen] - origin.astype(np.float32)[:, None]
    distance = np.sqrt(np.einsum("ij,ij->j", rays, rays))
    # A solid shades only points inside the cone from the light around its bounding sphere. Sorted by the cosine with
    # one axis, those points lie in one slice.
    order = np.argsort(rays[0] / distance)
    chosen, rays, distance = chosen[order], rays[:, order], distance[order]
    unit = rays / distance
    dark = np.zeros(chosen.size, bool)
    casters = [p for p in scene.primitives if _casts(scene, p)]
    towards, cosine, nearest = _cones(casters, origin)
    angle, spread = np.arccos(np.clip(towards[:, 0], -1, 1)), np.arccos(cosine)
    limits = np.cos(np.stack((np.minimum(angle + spread, np.pi), np.maximum(angle - spread, 0)), 1))
    slices = np.searchsorted(unit[0], (limits + (-1e-5, 1e-5)).astype(np.float32))
    for index, primitive in enumerate(casters):
        start, stop = slices[index]
        inside = towards[index].astype(np.float32) @ unit[:, start:stop] > cosine[index]
        tested = start + np.flatnonzero(inside & (distance[start:stop] > nearest[index]) & ~dark[start:stop])
        if tested.size:
            t = primitive.intersect(origin, rays[:, tested])
            dark[tested] = (1 - t) * distance[tested] > 4e-3
    visible = facing.copy()
    visible[chosen[dark]] = False
    return visible


def _casts(scene: Scene, primitive: Primitive) -> bool:
    flat = scene.object_class[primitive.object] in _FLAT
    return not flat and scene.materials[primitive.material].glow == 0


def _cones(primitives: list[Primitive], origin: Vector) -> tuple[Vector, Vector, Vector]:
    """Cones from `origin` around the solids: unit axes [p, 3], cosines of their half angles and distances of the near ends."""
    centre = np.array([p.centre for p in primitives]).reshape(-1, 3) - origin
    half = np.array([p.bounds() for p in primitives]).reshape(-1, 3)
    radius, reach = np.sqrt((half**2).sum(1)), np.sqrt((centre**2).sum(1))
    cosine = np.where(reach > radius, np.sqrt(np.maximum(1 - (radius / reach) ** 2, 0)), -1)
    return centre / reach[:, None], cosine, reach - radius
