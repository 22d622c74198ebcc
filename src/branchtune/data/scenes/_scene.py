"""A scene as data: what `_layout` composes, `_trace` hits and `_labels` describes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, sin

import numpy as np
from numpy.typing import ArrayLike

from ._materials import Material, Palette
from ._primitives import Kind, Primitive, Vector
from .classes import CLASS, PART


@dataclass(slots=True)
class Light:
    """A point light. Its intensity is that at one metre where it `fades`, else it is the same everywhere (a sun)."""

    position: Vector
    colour: Vector
    fades: bool


@dataclass(slots=True)
class Camera:
    """A pinhole camera: rows of `axes` are right, down and forward in the world; focal length in image half-sizes."""

    position: Vector
    axes: Vector
    focal: float
    yaw: float
    pitch: float
    roll: float


@dataclass(slots=True)
class Scene:
    """A room [0, size] (z up, metres) with its solids, lights and camera.

    Args:
        object_class: class of each object; the first three are the wall, the floor and the ceiling.
        room_materials: materials of the room's six faces, in the order of `exit_box`.
    """

    size: Vector
    palette: Palette
    primitives: list[Primitive] = field(default_factory=list)
    object_class: list[int] = field(default_factory=lambda: [CLASS["wall"], CLASS["floor"], CLASS["ceiling"]])
    room_materials: list[int] = field(default_factory=list)
    lights: list[Light] = field(default_factory=list)
    ambient: Vector = field(default_factory=lambda: np.full(3, 0.3))
    camera: Camera = field(init=False)

    @property
    def materials(self) -> list[Material]:
        return self.palette.materials


class Builder:
    """Adds the solids of one object, given in the object's own frame (x right, y front, z up; the origin on its base).

    Args:
        scene: receives the object.
        name: the object's class.
        base: world position of the frame's origin.
        yaw: rotation of the frame about z, in radians.
    """

    def __init__(self, scene: Scene, name: str, base: ArrayLike, yaw: float = 0.0) -> None:
        self.scene = scene
        self.palette = scene.palette
        self.rng = scene.palette.rng
        self.object = len(scene.object_class)
        scene.object_class.append(CLASS[name])
        self.base = np.asarray(base, np.float64)
        self.yaw = yaw
        self.axes = _yaw_axes(yaw)

    def world(self, point: ArrayLike) -> Vector:
        return self.base + self.axes @ np.asarray(point, np.float64)

    def box(self, centre: ArrayLike, size: ArrayLike, material: int, yaw: float = 0.0) -> None:
        """A box of full extents `size`, turned by `yaw` within the object."""
        half = np.asarray(size, np.float64) / 2
        axes = self.axes if yaw == 0 else self.axes @ _yaw_axes(yaw)
        self._add("box", self.world(centre), axes, half, material)

    def ellipsoid(self, centre: ArrayLike, half: ArrayLike, material: int, part: str = "background") -> None:
        self._add("ellipsoid", self.world(centre), self.axes, np.asarray(half, np.float64), material, part)

    def frustum(
        self, bottom: ArrayLike, height: float, lower: float, upper: float, material: int, part: str = "background"
    ) -> None:
        """An upright solid with the radii `lower` and `upper` at its ends."""
        centre = self.world(bottom) + np.array([0, 0, height / 2])
        radius = (lower + upper) / 2
        self._add("frustum", centre, self.axes, (radius, radius, height / 2), material, part, (upper - lower) / height)

    def capsule(self, start: ArrayLike, end: ArrayLike, radius: float, material: int, part: str = "background") -> None:
        a, b = self.world(start), self.world(end)
        length = float(np.linalg.norm(b - a))
        axes = _axes_along((b - a) / max(length, 1e-9))
        self._add("capsule", (a + b) / 2, axes, (radius, radius, length / 2 + radius), material, part)

    def _add(
        self,
        kind: Kind,
        centre: Vector,
        axes: Vector,
        half: ArrayLike,
        material: int,
        part: str = "background",
        slope: float = 0.0,
    ) -> None:
        x, y, z = np.asarray(half).tolist()
        self.scene.primitives.append(
            Primitive(kind, centre, axes, (x, y, z), material, self.object, PART[part], float(slope))
        )


def _yaw_axes(yaw: float) -> Vector:
    c, s = cos(yaw), sin(yaw)
    return np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _axes_along(z: Vector) -> Vector:
    """Orthonormal axes whose last column is the unit vector `z`."""
    helper = np.array([1.0, 0.0, 0.0]) if abs(z[0]) < 0.7 else np.array([0.0, 1.0, 0.0])
    x = helper - (helper @ z) * z
    x /= np.sqrt(x @ x)
    y = np.array([z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]])
    return np.stack((x, y, z), 1)
