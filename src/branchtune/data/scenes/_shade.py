"""Turns hits into an image: Lambert and Blinn-Phong shading with cast shadows, exposure and sensor noise."""

from __future__ import annotations

import numpy as np

from ._primitives import Floats
from ._scene import Scene
from ._trace import Hits, lit

_GLOSS = 24


def shade(scene: Scene, hits: Hits, height: int, width: int, rng: np.random.Generator) -> Floats:
    """The image in [0, 1] (sRGB-like gamma), [3, height, width]."""
    albedo, specular, glow = _paint(scene, hits)
    origin = scene.camera.position.astype(np.float32)
    points = origin[:, None] + hits.depth * hits.rays
    view = -hits.rays / _length(hits.rays)
    # A little more light from above than from below, as in a room with a bright ceiling.
    radiance = scene.ambient.astype(np.float32)[:, None] * (0.8 + 0.3 * hits.normals[2])
    highlight = np.zeros(hits.depth.size, np.float32)
    for light in scene.lights:
        to_light = light.position.astype(np.float32)[:, None] - points
        distance = _length(to_light)
        to_light /= distance
        cosine = _dot(to_light, hits.normals)
        strength = cosine * lit(scene, light, to_light, distance, cosine > 0)
        if light.fades:
            strength = strength / (0.6 + distance * distance)
        radiance = radiance + light.colour.astype(np.float32)[:, None] * strength
        shiny = np.flatnonzero((specular > 0) & (strength > 0))
        if shiny.size:
            half = to_light[:, shiny] + view[:, shiny]
            half /= _length(half)
            gleam = _dot(half, hits.normals[:, shiny]).clip(0, 1) ** _GLOSS
            highlight[shiny] += specular[shiny] * gleam * (strength[shiny] / np.maximum(cosine[shiny], 0.1))
    return _expose(albedo * (radiance + glow) + highlight, rng).reshape(3, height, width)


def _paint(scene: Scene, hits: Hits) -> tuple[Floats, Floats, Floats]:
    albedo = np.empty((3, hits.depth.size), np.float32)
    order = np.argsort(hits.material, kind="stable")
    used, starts = np.unique(hits.material[order], return_index=True)
    for index, pixels in zip(used, np.split(order, starts[1:]), strict=True):
        albedo[:, pixels] = scene.materials[index].albedo(hits.uv[:, pixels])
    specular = np.array([m.specular for m in scene.materials], np.float32)[hits.material]
    glow = np.array([m.glow for m in scene.materials], np.float32)[hits.material]
    return albedo, specular, glow


def _expose(radiance: Floats, rng: np.random.Generator) -> Floats:
    gain = np.float32(rng.uniform(0.33, 0.5) / (0.15 + radiance.mean()))
    tint = rng.uniform(0.92, 1.08, 3).astype(np.float32)[:, None]
    image = np.maximum(radiance * gain * tint, 0) ** np.float32(1 / rng.uniform(1.9, 2.4))
    noise = np.float32(rng.uniform(0.004, 0.03))
    return (image + noise * rng.standard_normal(image.shape, np.float32)).clip(0, 1)


def _dot(a: Floats, b: Floats) -> Floats:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _length(a: Floats) -> Floats:
    return np.sqrt(_dot(a, a))
