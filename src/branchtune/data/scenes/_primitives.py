"""Convex primitives and the closed-form rules that say where rays hit them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Vector = NDArray[np.float64]
Kind = Literal["box", "ellipsoid", "capsule", "frustum"]

TINY = np.float32(1e-12)
_MISS = np.float32(np.inf)


@dataclass(slots=True)
class Primitive:
    """A convex solid in its own frame (metres).

    Args:
        kind: "box" (half extents `half`), "ellipsoid" (semi-axes `half`), "capsule" (local z is the axis, radius
            half[0], spheres at z = +-(half[2] - half[0])) or "frustum" (local z is the axis; the radius at height z is
            half[0] + slope * z).
        centre: world position, [3].
        axes: columns are the local axes in the world frame, [3, 3].
        half: half extents in the local frame; those of a frustum are radius, radius at mid height and height / 2.
        slope: change of a frustum's radius per metre of local z.
    """

    kind: Kind
    centre: Vector
    axes: Vector
    half: tuple[float, float, float]
    material: int = 0
    object: int = 0
    part: int = 0
    slope: float = 0.0

    def bounds(self) -> tuple[float, float, float]:
        """Half extents of a box around the solid, in its own frame."""
        radius = self.half[0] + abs(self.slope) * self.half[2]
        return (radius, radius, self.half[2]) if self.kind == "frustum" else self.half


def exit_box(origin: Vector, directions: Floats, size: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Where rays from inside the box [0, size] leave it: ray parameter [n] and face (2 * axis + upper) [n]."""
    wall = np.where(directions >= 0, size[:, None], np.float32(0))
    t = (wall - origin.astype(np.float32)[:, None]) / (directions + TINY)
    axis = t.argmin(0)
    rows = np.arange(axis.size)
    return t[axis, rows], 2 * axis + (directions[axis, rows] > 0)


# Each rule takes rays (origins o [3, n], directions d [3, n], local frame, origins outside the solid), half extents
# [3, n] and slopes [n]; it returns the ray parameter of the first hit in front of the origin, inf for a miss, [n].


def hit_box(o: Floats, d: Floats, half: Floats, slope: Floats) -> Floats:
    inverse = 1 / (d + TINY)
    middle = -o * inverse
    spread = np.abs(inverse) * half
    near, far = middle - spread, middle + spread
    entry = np.maximum(np.maximum(near[0], near[1]), near[2])
    leave = np.minimum(np.minimum(far[0], far[1]), far[2])
    return np.where((entry < leave) & (entry > 0), entry, _MISS)


def hit_ellipsoid(o: Floats, d: Floats, half: Floats, slope: Floats) -> Floats:
    d = d / half
    start, p, length = _approach(o / half, d)
    inside = 1 - _dot(p, p)
    t = start - np.sqrt(np.maximum(inside, 0) / length)
    return np.where((inside > 0) & (t > 0), t, _MISS)


def hit_capsule(o: Floats, d: Floats, half: Floats, slope: Floats) -> Floats:
    start, p, length = _approach(o, d)
    a = np.maximum(d[0] * d[0] + d[1] * d[1], TINY)
    b = p[0] * d[0] + p[1] * d[1]
    c = p[0] * p[0] + p[1] * p[1] - half[0] * half[0]
    discriminant = b * b - a * c
    out = np.full(start.shape, _MISS)
    # Only rays that meet the endless cylinder go on: both end spheres lie inside it.
    rays = np.flatnonzero(discriminant > 0)
    a, b, c, start, pz, dz, length = a[rays], b[rays], c[rays], start[rays], p[2, rays], d[2, rays], length[rays]
    t = (-b - np.sqrt(discriminant[rays])) / a
    z, reach = pz + t * dz, half[2, rays] - half[0, rays]
    end = np.minimum(np.maximum(z, -reach), reach)
    pz = pz - end
    b, c = b + pz * dz, c + pz * pz
    discriminant = b * b - length * c
    side = z == end
    t = np.where(side, t, (-b - np.sqrt(np.maximum(discriminant, 0))) / length) + start
    out[rays] = np.where((side | (discriminant > 0)) & (t > 0), t, _MISS)
    return out


def hit_frustum(o: Floats, d: Floats, half: Floats, slope: Floats) -> Floats:
    start, p, _ = _approach(o, d)
    r, dr = half[0] + slope * p[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - dr * dr
    a = np.where(np.abs(a) < TINY, TINY, a)
    b = p[0] * d[0] + p[1] * d[1] - r * dr
    discriminant = b * b - a * (p[0] * p[0] + p[1] * p[1] - r * r)
    out = np.full(start.shape, _MISS)
    # Only rays that meet the endless cone go on: both caps lie inside it.
    rays = np.flatnonzero(discriminant > 0)
    a, b, start, slope = a[rays], b[rays], start[rays], slope[rays]
    (px, py, pz), (dx, dy, dz), (radius, _, height) = p[:, rays], d[:, rays], half[:, rays]
    root = np.sqrt(discriminant[rays])
    best = out[rays]
    for t in ((-b - root) / a, (-b + root) / a):
        valid = (np.abs(pz + t * dz) <= height) & (t + start > 0)
        best = np.where(valid & (t + start < best), t + start, best)
    end = -np.sign(dz) * height
    t = (end - pz) / (dz + TINY)
    x, y, edge = px + t * dx, py + t * dy, radius + slope * end
    valid = (x * x + y * y <= edge * edge) & (t + start > 0) & (t + start < best)
    out[rays] = np.where(valid, t + start, best)
    return out


def _approach(o: Floats, d: Floats) -> tuple[Floats, Floats, Floats]:
    # Restarting each ray at its point nearest the centre keeps float32 exact for small, distant solids.
    length = _dot(d, d)
    start = -_dot(o, d) / length
    return start, o + start * d, length


def _dot(a: Floats, b: Floats) -> Floats:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


# Each rule below takes hit points p [3, n], ray directions and origins, half extents and slopes in the local frame; it
# returns local normals (any length) [3, n] and the index of the smooth face [n].


def face_of_box(p: Floats, o: Floats, d: Floats, half: Floats, slope: Floats) -> tuple[Floats, NDArray[np.intp]]:
    # The entered face, not the nearest one: a normal must face its ray even on an edge.
    sign = np.where(d < 0, np.float32(-1), np.float32(1))
    axis = ((-sign * half - o) / (d + TINY)).argmax(0)
    rows = np.arange(axis.size)
    normals = np.zeros_like(p)
    normals[axis, rows] = -sign[axis, rows]
    return normals, 2 * axis + (sign[axis, rows] < 0)


def face_of_ellipsoid(p: Floats, o: Floats, d: Floats, half: Floats, slope: Floats) -> tuple[Floats, NDArray[np.intp]]:
    return p / (half * half), np.zeros(p.shape[1], np.intp)


def face_of_capsule(p: Floats, o: Floats, d: Floats, half: Floats, slope: Floats) -> tuple[Floats, NDArray[np.intp]]:
    reach = half[2] - half[0]
    z = p[2] - np.minimum(np.maximum(p[2], -reach), reach)
    return np.stack((p[0], p[1], z)), np.zeros(p.shape[1], np.intp)


def face_of_frustum(p: Floats, o: Floats, d: Floats, half: Floats, slope: Floats) -> tuple[Floats, NDArray[np.intp]]:
    x, y, z = p
    radius = np.sqrt(x * x + y * y)
    side = np.abs(radius - half[0] - slope * z) < np.abs(np.abs(z) - half[2])
    normals = np.stack((x * side, y * side, np.where(side, -slope * radius, np.sign(z))))
    return normals, np.where(side, 0, np.where(z > 0, 1, 2))
