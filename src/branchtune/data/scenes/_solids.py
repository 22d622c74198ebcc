"""All solids of a scene as arrays, so that one call serves many rays and many solids of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from . import _primitives as primitives
from ._primitives import Floats, Primitive, Vector

_RULES = {
    "box": (primitives.hit_box, primitives.face_of_box),
    "ellipsoid": (primitives.hit_ellipsoid, primitives.face_of_ellipsoid),
    "capsule": (primitives.hit_capsule, primitives.face_of_capsule),
    "frustum": (primitives.hit_frustum, primitives.face_of_frustum),
}
_KINDS = list(_RULES)

_CHUNK = 6000
"""Rays per call: enough to hide the cost of a call, few enough to stay in the cache."""


class Solids:
    """Solids as seen by rays from one origin.

    Args:
        solids: the primitives, in the order of their indices.
        origin: where all rays start, world frame, [3].
    """

    def __init__(self, solids: Sequence[Primitive], origin: Vector) -> None:
        self.kind = np.array([_KINDS.index(s.kind) for s in solids], np.int64)
        axes = np.array([s.axes for s in solids]).reshape(-1, 3, 3)
        centre = np.array([s.centre for s in solids]).reshape(-1, 3)
        bounds = np.array([s.bounds() for s in solids]).reshape(-1, 3)
        self.towards = centre - origin
        self.radius = np.sqrt((bounds**2).sum(1))
        self.corners = self.towards[:, None] + np.einsum("pij,pkj->pki", axes, _CORNERS * bounds[:, None])
        self._axes = axes.astype(np.float32)
        self._to_local = np.ascontiguousarray(self._axes.transpose(0, 2, 1))
        origins = -np.einsum("pij,pi->jp", axes, self.towards)
        halves = np.array([s.half for s in solids]).reshape(-1, 3).T
        slopes = np.array([[s.slope for s in solids]])
        # Rows: origin in the local frame, half extents, slope. One copy per ray serves all three.
        self._table = np.concatenate((origins, halves, slopes)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.kind)

    def hits(self, rays: dict[int, Floats]) -> Iterator[tuple[int, Floats]]:
        """Ray parameters of the first hits, inf for a miss.

        Args:
            rays: world directions [3, n] by index of the solid to try them on.

        Yields:
            The index and its ray parameters [n], in any order.
        """
        for kind, (hit, _) in enumerate(_RULES.values()):
            chosen = [index for index in rays if self.kind[index] == kind]
            for chunk in _chunks(chosen, rays):
                counts = [rays[index].shape[1] for index in chunk]
                stops = np.cumsum(counts)
                d = np.empty((3, stops[-1]), np.float32)
                for index, stop, count in zip(chunk, stops, counts, strict=True):
                    d[:, stop - count : stop] = self._to_local[index] @ rays[index]
                table = self._table[:, chunk].repeat(counts, 1)
                t = hit(table[:3], d, table[3:6], table[6])
                yield from zip(chunk, np.split(t, stops[:-1]), strict=True)

    def surfaces(self, index: NDArray[np.intp], rays: Floats, t: Floats) -> tuple[Floats, Floats, NDArray[np.intp]]:
        """What the rays [3, n] meet at parameters t [n] on the solids `index` [n].

        Returns:
            World unit normals [3, n], surface coordinates in metres [2, n], numbers of the smooth faces [n] (< 8).
        """
        normals = np.empty((3, t.size), np.float32)
        uv = np.empty((2, t.size), np.float32)
        face = np.zeros(t.size, np.intp)
        for kind, (_, face_of) in enumerate(_RULES.values()):
            at = np.flatnonzero(self.kind[index] == kind)
            rows = index[at]
            axes = self._axes[rows]
            table = self._table[:, rows]
            o, half = table[:3], table[3:6]
            d = np.einsum("nij,in->jn", axes, rays[:, at])
            p = o + t[at] * d
            n, face[at] = face_of(p, o, d, half, table[6])
            n = n / (np.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]) + primitives.TINY)
            normals[:, at] = np.einsum("nij,jn->in", axes, n)
            if _KINDS[kind] == "box":
                axis = face[at] // 2
                uv[0, at], uv[1, at] = np.where(axis == 0, p[1], p[0]), np.where(axis == 2, p[1], p[2])
            else:
                uv[0, at], uv[1, at] = np.arctan2(p[1], p[0]) * half[0], p[2]
        return normals, uv, face


_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def _chunks(chosen: list[int], rays: dict[int, Floats]) -> Iterator[list[int]]:
    chunk: list[int] = []
    total = 0
    for index in chosen:
        count = rays[index].shape[1]
        if chunk and total + count > _CHUNK:
            yield chunk
            chunk, total = [], 0
        chunk.append(index)
        total += count
    if chunk:
        yield chunk
