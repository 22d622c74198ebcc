"""Closed-form ray hits against their naive twin: walking along each ray and asking whether a point is inside."""

from __future__ import annotations

import numpy as np
import pytest

from branchtune.data.scenes._primitives import Primitive, exit_box
from branchtune.data.scenes._solids import Solids

KINDS = ("box", "ellipsoid", "capsule", "frustum")


def random_solid(kind, rng):
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    half = rng.uniform(0.2, 0.6, 3)
    slope = 0.0
    if kind in ("capsule", "frustum"):
        half[1] = half[0]
    if kind == "capsule":
        half[2] = half[0] + rng.uniform(0.1, 0.6)
    if kind == "frustum":
        slope = rng.uniform(-0.9, 0.9) * half[0] / half[2]
    return Primitive(kind, rng.normal(size=3) * 0.2, axes, tuple(half.tolist()), slope=slope)


def level(solid, points):
    """Negative inside the solid, zero on its surface; points [..., 3] in the world."""
    local = (points - solid.centre) @ solid.axes
    half = np.array(solid.half)
    x, y, z = np.moveaxis(local, -1, 0)
    if solid.kind == "box":
        return (np.abs(local) - half).max(-1)
    if solid.kind == "ellipsoid":
        return np.linalg.norm(local / half, axis=-1) - 1
    if solid.kind == "capsule":
        reach = half[2] - half[0]
        return np.sqrt(x**2 + y**2 + (z - np.clip(z, -reach, reach)) ** 2) - half[0]
    return np.maximum(np.hypot(x, y) - (half[0] + solid.slope * z), np.abs(z) - half[2])


@pytest.mark.parametrize("kind", KINDS)
def test_hits_and_normals_equal_the_twin(kind):
    rng = np.random.default_rng(KINDS.index(kind))
    hits = 0
    for _ in range(12):
        solid = random_solid(kind, rng)
        origin = rng.normal(size=3)
        origin *= 3 / np.linalg.norm(origin)
        targets = rng.normal(size=(200, 3)) * 0.45
        rays = (targets - origin).T.astype(np.float32)
        solids = Solids([solid], origin)
        [(_, t)] = solids.hits({0: rays})

        walk = np.linspace(0.3, 2.0, 1500)
        inside = level(solid, origin + walk[:, None, None] * rays.T) < 0
        first = np.where(inside.any(0), walk[inside.argmax(0)], np.inf)
        hit = np.isfinite(t)
        assert hit[np.isfinite(first)].all(), "a ray that passes through the solid hits it"
        # The walk can step over a grazing hit, but never enters before the hit.
        assert (first >= t - 1e-4).all()
        both = hit & np.isfinite(first)
        assert (first[both] - t[both]).max() < 1.01 * (walk[1] - walk[0]) + 1e-4
        points = origin + (t[hit] * rays[:, hit]).T
        np.testing.assert_allclose(level(solid, points), 0, atol=3e-5)

        normals, _, _ = solids.surfaces(np.zeros(hit.sum(), np.intp), rays[:, hit], t[hit])
        np.testing.assert_allclose(np.linalg.norm(normals, axis=0), 1, atol=1e-5)
        assert (normals * rays[:, hit]).sum(0).max() < 1e-3
        # Moving along an outward normal leaves the solid, as fast as any direction does.
        away = level(solid, points + 1e-3 * normals.T)
        assert (away > 0).all()
        hits += hit.sum()
    assert hits > 300


def test_many_solids_in_one_call_equal_one_call_each():
    rng = np.random.default_rng(0)
    solids = [random_solid(KINDS[i % 4], rng) for i in range(23)]
    origin = np.array([2.5, -1.0, 1.5])
    rays = {
        i: (rng.normal(size=(3, int(n))) * 0.4 - origin[:, None]).astype(np.float32)
        for i, n in enumerate(rng.integers(1, 2000, len(solids)))
    }
    together = dict(Solids(solids, origin).hits(rays))
    assert together.keys() == rays.keys()
    for index, solid in enumerate(solids):
        [(_, alone)] = Solids([solid], origin).hits({0: rays[index]})
        np.testing.assert_allclose(together[index], alone, rtol=1e-5)


def test_solids_behind_the_origin_are_not_hit():
    ahead = np.array([[0.0], [0.0], [1.0]], np.float32)
    for kind in KINDS:
        solid = Primitive(kind, np.array([0.0, 0.0, -3.0]), np.eye(3), (0.5, 0.5, 0.8))
        [(_, t)] = Solids([solid], np.zeros(3)).hits({0: ahead})
        assert np.isinf(t).all()
        [(_, t)] = Solids([solid], np.zeros(3)).hits({0: -ahead})
        np.testing.assert_allclose(t, 3 - solid.half[2], rtol=1e-5)


def test_rays_leave_the_room_through_the_right_face():
    size = np.array([4.0, 3.0, 2.5], np.float32)
    directions = np.concatenate([np.eye(3), -np.eye(3)]).T.astype(np.float32)
    t, face = exit_box(np.array([1.0, 1.0, 1.0]), directions, size)
    np.testing.assert_allclose(t, [3, 2, 1.5, 1, 1, 1])
    np.testing.assert_array_equal(face, [1, 3, 5, 0, 2, 4])
