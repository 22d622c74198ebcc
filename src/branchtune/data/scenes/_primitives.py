"""Convex primitives that rays from one origin can hit, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Kind = Literal["box", "ellipsoid", "capsule", "frustum"]

_TINY = np.float32(1e-12)


@dataclass(slots=True)
class Primitive:
    """A convex solid in its own frame (metres).

    Args:
        kind: "box" (half extents `half`), "ellipsoid" (semi-axes `half`), "capsule" (local z is the axis, radius
            half[0], spheres at z = +-(half[2] - half[0])) or "frustum" (local z is the axis; the radius at height z is
            half[0] + slope * z).
        centre: world position, [3].
        axes: columns are the local axes in the world frame, [3, 3].
        half: half extents of the bounding box in the local frame, [3]. A frustum's are `radius, radius, height / 2`
            at mid height.
        slope: change of a frustum's radius per metre of local z.
    """

    kind: Kind
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    half: tuple[float, float, float]
    material: int = 0
    object: int = 0
    part: int = 0
    slope: float = 0.0

    def bounds(self) -> tuple[float, float, float]:
        """Half extents of a box around the solid, in its own frame."""
        if self.kind != "frustum":
            return self.half
        radius = self.half[0] + abs(self.slope) * self.half[2]
        return (radius, radius, self.half[2])

    def local(self, origin: NDArray[np.float64], directions: Floats) -> tuple[Floats, Floats]:
        """The rays' common origin [3] and directions [3, n] in the local frame."""
        o = (self.axes.T @ (origin - self.centre)).astype(np.float32)
        return o, self.axes.T.astype(np.float32) @ directions

    def intersect(self, origin: NDArray[np.float64], directions: Floats) -> Floats:
        """Ray parameter of the first hit in front of the origin, inf where the ray misses, [n].

        Args:
            origin: common origin of the rays, outside the solid, [3].
            directions: not necessarily of unit length, [3, n].
        """
        o, d = self.local(origin, directions)
        if self.kind == "box":
            return _box(o, d, self.half)
        if self.kind == "ellipsoid":
            scale = np.float32(1) / np.asarray(self.half, np.float32)
            return _sphere(o * scale, d * scale[:, None])
        if self.kind == "capsule":
            return _capsule(o, d, self.half[0], self.half[2] - self.half[0])
        return _frustum(o, d, self.half[0], self.slope, self.half[2])

    def surface(
        self, origin: NDArray[np.float64], directions: Floats, t: Floats
    ) -> tuple[Floats, Floats, NDArray[np.int32]]:
        """World normals [3, n], surface coordinates in metres [2, n] and smooth-face indices [n] at hits `t`."""
        o, d = self.local(origin, directions)
        p = o[:, None] + t * d
        x, y, z = p
        face = np.zeros(t.shape, np.int32)
        if self.kind == "box":
            return self._box_surface(o, d, p)
        if self.kind == "ellipsoid":
            n = p / (np.asarray(self.half, np.float32) ** 2)[:, None]
        elif self.kind == "capsule":
            reach = np.float32(self.half[2] - self.half[0])
            n = np.stack((x, y, z - np.clip(z, -reach, reach)))
        else:
            radius = np.hypot(x, y)
            side = np.abs(radius - (self.half[0] + self.slope * z)) < np.abs(np.abs(z) - self.half[2])
            n = np.where(side, np.stack((x, y, -np.float32(self.slope) * radius)), 0)
            n[2] = np.where(side, n[2], np.sign(z))
            face = np.where(side, 0, np.where(z > 0, 1, 2)).astype(np.int32)
        n /= np.sqrt(np.einsum("ij,ij->j", n, n)) + _TINY
        uv = np.stack((np.arctan2(y, x) * np.float32(self.half[0]), z))
        return self.axes.astype(np.float32) @ n, uv, face

    def _box_surface(self, o: Floats, d: Floats, p: Floats) -> tuple[Floats, Floats, NDArray[np.int32]]:
        sign = np.sign(d) + (d == 0)
        enter = (-sign * np.asarray(self.half, np.float32)[:, None] - o[:, None]) / (d + _TINY)
        axis = enter.argmax(0)
        rows = np.arange(axis.size)
        facing = -sign[axis, rows]
        normals = self.axes.astype(np.float32)[:, axis] * facing
        u = np.where(axis == 0, p[1], p[0])
        v = np.where(axis == 2, p[1], p[2])
        return normals, np.stack((u, v)), (axis * 2 + (facing > 0)).astype(np.int32)


def exit_box(origin: NDArray[np.float64], directions: Floats, size: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Where rays from inside the box [0, size] leave it: ray parameter [n] and face (2 * axis + upper) [n]."""
    wall = np.where(directions >= 0, size[:, None], np.float32(0))
    t = (wall - origin.astype(np.float32)[:, None]) / (directions + _TINY)
    axis = t.argmin(0)
    rows = np.arange(axis.size)
    return t[axis, rows], 2 * axis + (directions[axis, rows] > 0)


def _box(o: Floats, d: Floats, half: tuple[float, float, float]) -> Floats:
    inverse = 1 / (d + _TINY)
    middle = -o[:, None] * inverse
    spread = np.abs(inverse) * np.asarray(half, np.float32)[:, None]
    near = (middle - spread).max(0)
    far = (middle + spread).min(0)
    return np.where((near < far) & (near > 0), near, np.float32(np.inf))


def _approach(o: Floats, d: Floats) -> tuple[Floats, Floats]:
    # Restarting each ray at its point nearest the centre keeps float32 exact for small, distant solids.
    start = -(o @ d) / np.einsum("ij,ij->j", d, d)
    return start, o[:, None] + start * d


def _sphere(o: Floats, d: Floats) -> Floats:
    start, p = _approach(o, d)
    inside = 1 - np.einsum("ij,ij->j", p, p)
    t = start - np.sqrt(np.maximum(inside, 0) / np.einsum("ij,ij->j", d, d))
    return np.where((inside > 0) & (t > 0), t, np.float32(np.inf))


def _capsule(o: Floats, d: Floats, radius: float, reach: float) -> Floats:
    start, p = _approach(o, d)
    a = np.maximum(d[0] * d[0] + d[1] * d[1], _TINY)
    b = p[0] * d[0] + p[1] * d[1]
    c = p[0] * p[0] + p[1] * p[1] - np.float32(radius * radius)
    discriminant = b * b - a * c
    out = np.full(start.shape, np.inf, np.float32)
    # Only rays that meet the endless cylinder go on: both end spheres lie inside it.
    rays = np.flatnonzero(discriminant > 0)
    a, b, c, start, pz, dz = a[rays], b[rays], c[rays], start[rays], p[2, rays], d[2, rays]
    t = (-b - np.sqrt(discriminant[rays])) / a
    z = pz + t * dz
    end = np.clip(z, -reach, reach)
    pz = pz - end
    a, b, c = a + dz * dz, b + pz * dz, c + pz * pz
    discriminant = b * b - a * c
    side = z == end
    t = np.where(side, t, (-b - np.sqrt(np.maximum(discriminant, 0))) / a) + start
    out[rays] = np.where((side | (discriminant > 0)) & (t > 0), t, np.float32(np.inf))
    return out


def _frustum(o: Floats, d: Floats, radius: float, slope: float, half: float) -> Floats:
    start, p = _approach(o, d)
    r, dr = radius + slope * p[2], slope * d[2]
    a = d[0] * d[0] + d[1] * d[1] - dr * dr
    a = np.where(np.abs(a) < _TINY, _TINY, a)
    b = p[0] * d[0] + p[1] * d[1] - r * dr
    discriminant = b * b - a * (p[0] * p[0] + p[1] * p[1] - r * r)
    out = np.full(start.shape, np.inf, np.float32)
    # Only rays that meet the endless cone go on: both caps lie inside it.
    rays = np.flatnonzero(discriminant > 0)
    a, b, start, (px, py, pz), (dx, dy, dz) = a[rays], b[rays], start[rays], p[:, rays], d[:, rays]
    root = np.sqrt(discriminant[rays])
    best = out[rays]
    for t in ((-b - root) / a, (-b + root) / a):
        valid = (np.abs(pz + t * dz) <= half) & (t + start > 0)
        best = np.where(valid & (t + start < best), t + start, best)
    t = (-np.sign(dz) * np.float32(half) - pz) / (dz + _TINY)
    x, y, edge = px + t * dx, py + t * dy, radius - np.sign(dz) * np.float32(slope * half)
    valid = (x * x + y * y <= edge * edge) & (t + start > 0) & (t + start < best)
    out[rays] = np.where(valid, t + start, best)
    return out
