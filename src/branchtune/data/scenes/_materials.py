"""Materials: procedural textures as functions of the surface coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ._primitives import Floats
from .classes import TEXTURES

_PRIMARIES = np.array([0.0, 1 / 3, 2 / 3])


@dataclass(slots=True)
class Material:
    """What a surface looks like.

    Args:
        texture: one of `TEXTURES`.
        colours: two linear RGB colours that the texture mixes, [2, 3].
        scale: size of the texture's pattern in metres.
        phase: offsets and directions of the pattern, [8] in [0, 1).
        specular: strength of the highlight.
        glow: emitted light as a multiple of the colour.
    """

    texture: str
    colours: Floats
    scale: float
    phase: Floats
    specular: float = 0.0
    glow: float = 0.0

    def albedo(self, uv: Floats) -> Floats:
        """Linear RGB at surface coordinates [2, n] in metres: [3, n]."""
        first, second = self.colours[:, :, None]
        if self.texture == "plain":
            return np.broadcast_to(first, (3, uv.shape[1]))
        mix = _PATTERNS[self.texture](uv / np.float32(self.scale) + self.phase[:2, None], self.phase)
        return first + (second - first) * mix


def _waves(uv: Floats, phase: Floats) -> Floats:
    # A few plane waves are a cheap band-limited noise in [-1, 1].
    angle = phase[2:6] * np.float32(2 * np.pi) + np.arange(4, dtype=np.float32)
    frequency = np.float32(2.0) * np.array([1.0, 1.7, 2.9, 4.3], np.float32)
    directions = np.stack((np.cos(angle), np.sin(angle)), 1) * frequency[:, None]
    return np.sin(directions @ uv + 7 * angle[:, None]).mean(0)


def _checker(uv: Floats, phase: Floats) -> Floats:
    cells = np.floor(uv)
    return (cells[0] + cells[1]) % 2


def _stripes(uv: Floats, phase: Floats) -> Floats:
    across = uv[0] if phase[6] < 0.7 else uv[1]
    return (across % 1 < 0.3 + 0.4 * phase[7]).astype(np.float32)


def _wood(uv: Floats, phase: Floats) -> Floats:
    along, across = (uv[0], uv[1]) if phase[6] < 0.5 else (uv[1], uv[0])
    plank = np.floor(across)
    grain = np.sin(9 * across + 3 * _waves(np.stack((along * np.float32(0.3), across)), phase) + 5 * plank)
    seam = across % 1 < 0.06
    return np.clip(0.35 + 0.25 * grain + 0.25 * np.sin(plank * 12.9), 0, 1) * ~seam + seam


def _noise(uv: Floats, phase: Floats) -> Floats:
    return 0.5 + 0.5 * _waves(uv, phase)


def _bricks(uv: Floats, phase: Floats) -> Floats:
    row = np.floor(uv[1] * 2)
    column = uv[0] + 0.5 * (row % 2)
    joint = (uv[1] * 2 % 1 < 0.14) | (column % 1 < 0.07)
    return np.where(joint, np.float32(1), np.float32(0.25) * np.sin(row * 7.3 + np.floor(column) * 3.1) ** 2)


_PATTERNS = {"checker": _checker, "stripes": _stripes, "wood": _wood, "noise": _noise, "bricks": _bricks}


class Palette:
    """Draws the materials of one scene and keeps them in order."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.materials: list[Material] = []
        self.hue = rng.random()
        self.spread = rng.uniform(0.1, 1.0)

    def colour(self, light: tuple[float, float] = (0.15, 0.8), chroma: float = 0.7) -> NDArray[np.float64]:
        """A linear RGB colour, mostly near the scene's hue: brightness within `light`, saturation up to `chroma`."""
        hue = self.rng.random() if self.rng.random() < 0.3 else self.hue + self.spread * self.rng.uniform(-0.5, 0.5)
        value, saturation = self.rng.uniform(*light), chroma * self.rng.random()
        wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (hue - _PRIMARIES))
        return value * (1 - saturation * (1 - wheel))

    def add(
        self,
        textures: Sequence[str] = TEXTURES,
        light: tuple[float, float] = (0.15, 0.8),
        chroma: float = 0.7,
        scale: tuple[float, float] = (0.06, 0.3),
        colour: NDArray[np.float64] | None = None,
        glow: float = 0.0,
    ) -> int:
        """Draw a material and return its index."""
        first = self.colour(light, chroma) if colour is None else np.asarray(colour)
        second = first * self.rng.uniform(0.35, 0.75) if self.rng.random() < 0.6 else self.colour(light, chroma)
        texture = textures[int(self.rng.integers(len(textures)))]
        specular = self.rng.uniform(0.1, 0.5) if self.rng.random() < 0.35 else 0.0
        colours = np.stack((first, second)).astype(np.float32)
        phase = self.rng.random(8).astype(np.float32)
        self.materials.append(Material(texture, colours, self.rng.uniform(*scale), phase, specular, glow))
        return len(self.materials) - 1
