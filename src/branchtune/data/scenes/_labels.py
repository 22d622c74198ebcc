"""Exact dense labels from hits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ._primitives import Floats
from ._scene import Scene
from ._trace import Hits
from .classes import CLASS, CLASSES, SALIENT

_CREASE = 0.82


def dense_labels(scene: Scene, hits: Hits, height: int, width: int) -> dict[str, NDArray]:
    shape = (height, width)
    semseg = np.asarray(scene.object_class)[hits.object].reshape(shape)
    person = semseg == CLASS["person"]
    parts = hits.part.astype(np.int64).reshape(shape) if person.any() else np.full(shape, 255, np.int64)
    normals = scene.camera.axes.astype(np.float32) @ hits.normals
    return {
        "semseg": semseg.astype(np.int64),
        "parts": parts,
        "saliency": _saliency(hits.object.reshape(shape), semseg),
        "normals": normals.reshape(3, *shape),
        "depth": hits.depth.reshape(shape),
        "edge": _edges(hits, shape),
    }


def _saliency(objects: NDArray, semseg: NDArray) -> Floats:
    """The most prominent things.

    Every instance of a class in `SALIENT` that covers at least 0.5 % of the image scores
    sqrt(area) * exp(-d^2 / 0.32), twice that for a person, with the area as a share of the image and d the distance of
    its centroid from the image's centre, in image sides. Salient are the best one and all that reach 0.6 of its score.
    """
    height, width = objects.shape
    salient_class = np.isin(np.arange(len(CLASSES)), [CLASS[name] for name in SALIENT])
    flat = objects.reshape(-1)
    count = int(flat.max()) + 1
    area = np.bincount(flat, minlength=count)
    x = np.bincount(flat, np.tile(np.arange(width) + 0.5, height), count) / np.maximum(area, 1) / width - 0.5
    y = np.bincount(flat, np.repeat(np.arange(height) + 0.5, width), count) / np.maximum(area, 1) / height - 0.5
    kind = np.zeros(count, np.int64)
    kind[flat] = semseg.reshape(-1)
    share = area / flat.size
    score = np.sqrt(share) * np.exp(-(x * x + y * y) / 0.32) * np.where(kind == CLASS["person"], 2, 1)
    score *= salient_class[kind] & (share >= 0.005)
    best = score.max()
    return ((score >= 0.6 * best) & (score > 0)).astype(np.float32)[objects]


def _edges(hits: Hits, shape: tuple[int, int]) -> Floats:
    """Occlusion edges on the nearer pixel, creases on the left or upper one, about one pixel wide.

    Two neighbouring pixels of different smooth surfaces share an occlusion edge if neither's tangent plane passes
    through the other's point (3 % of the depth + 1 cm), and a crease if their normals differ by more than about
    35 degrees.
    """
    surface, depth = hits.surface.reshape(shape), hits.depth.reshape(shape)
    normals, rays = hits.normals.reshape(3, *shape), hits.rays.reshape(3, *shape)
    edge = np.zeros(shape, bool)
    for first, second in (
        (np.s_[:, :-1], np.s_[:, 1:]),
        (np.s_[:-1, :], np.s_[1:, :]),
    ):
        rows, columns = np.nonzero(surface[first] != surface[second])
        p = (rows, columns)
        q = (rows + (first[0] != second[0]), columns + (first[1] != second[1]))
        np_, nq = normals[:, p[0], p[1]], normals[:, q[0], q[1]]
        rp, rq = rays[:, p[0], p[1]], rays[:, q[0], q[1]]
        zp, zq = depth[p], depth[q]
        slack = 0.03 * np.minimum(zp, zq) + 0.01
        gap = np.minimum(
            np.abs(zq - zp * _dot(np_, rp) / _facing(np_, rq)), np.abs(zp - zq * _dot(nq, rq) / _facing(nq, rp))
        )
        occlusion = gap > slack
        crease = _dot(np_, nq) < _CREASE
        nearer = np.where(occlusion & (zq < zp), 1, 0)
        marked = occlusion | crease
        edge[np.where(nearer, q[0], p[0])[marked], np.where(nearer, q[1], p[1])[marked]] = True
    return edge.astype(np.float32)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.einsum("ij,ij->j", a, b)


def _facing(normals: Floats, rays: Floats) -> Floats:
    return np.minimum(_dot(normals, rays), np.float32(-1e-6))
